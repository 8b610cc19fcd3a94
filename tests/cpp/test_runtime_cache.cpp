// Where the TensorRT backend keeps the kernels that are compiled for a card, against stand-ins for the SDKs.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "check.h"
#include "device_bundle.h"
#include "elastic_runtime/sha256.h"
#include "fake_sdk.h"

#ifndef _WIN32
#include <sys/resource.h>
#endif

using namespace elastic;
using namespace elastic_test;
namespace fs = std::filesystem;

TEST(device_runtime_cache_is_kept) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.runtime_cache = fs::path(scratch("cache")) / "kernels";
  for (const char* wanted : {"", "+", "++"}) {
    fake::state().cache_read = "";
    backend_of(bundle, options);
    CHECK_EQ(fake::state().cache_read, wanted);
  }
}

#ifndef _WIN32
TEST(device_a_full_disk_leaves_the_old_runtime_cache) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.runtime_cache = fs::path(scratch("full")) / "kernels";
  std::ofstream(*options.runtime_cache) << "+++";
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  {
    const auto backend = backend_of(bundle, options);  // will want to write four
    const rlimit none{2, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &none);
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::string kept;
  std::ifstream(*options.runtime_cache) >> kept;
  CHECK_EQ(kept, "+++");
  CHECK_EQ(
      std::distance(fs::directory_iterator(options.runtime_cache->parent_path()), fs::directory_iterator()),
      1);
}
#endif

TEST(device_an_empty_runtime_cache_is_none) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.runtime_cache = fs::path(scratch("empty")) / "kernels";
  std::ofstream(*options.runtime_cache) << "";
  fake::state().cache_read = "";
  backend_of(bundle, options);
  CHECK_EQ(fake::state().cache_read, "");
  CHECK_EQ(fs::file_size(*options.runtime_cache), 1u);  // and made anew
}

TEST(device_kernels_are_shared_by_the_contexts_of_a_run) {
  const Bundle bundle = make_bundle();
  std::vector<std::string> heard;
  TensorRtOptions options;
  options.warn = [&](const std::string& text) { heard.push_back(text); };
  const std::string compiling = "compiling the kernels of a.engine for this card, once: up to half a minute";
  backend_of(bundle, options);  // no file is named: the cache is there all the same
  CHECK_EQ(std::count(heard.begin(), heard.end(), compiling), 1);
  options.runtime_cache = fs::path(scratch("announced")) / "kernels";
  backend_of(bundle, options);
  CHECK_EQ(std::count(heard.begin(), heard.end(), compiling), 2);
  backend_of(bundle, options);
  CHECK_EQ(std::count(heard.begin(), heard.end(), compiling), 2);
}

#ifndef _WIN32
TEST(device_kernels_are_kept_where_python_keeps_them) {
  const Bundle bundle = make_bundle();
  const EngineEntry& engine = bundle.budget("b").engines[0];
  const auto place = [&] {
    return default_runtime_cache(bundle, engine, "Fake RTX 5080 (16 GB)")->generic_string();
  };
  const std::string name = sha256("engine").substr(0, 16) + "-Fake-RTX-5080-16-GB-.cache";
  for (const char* variable : {"ELASTIC_CACHE", "XDG_CACHE_HOME"}) unsetenv(variable);
  setenv("HOME", "/home/x", 1);
  CHECK_EQ(place(), "/home/x/.cache/elastic-runtime/kernels/" + name);
  setenv("XDG_CACHE_HOME", "/caches", 1);
  CHECK_EQ(place(), "/caches/elastic-runtime/kernels/" + name);
  setenv("ELASTIC_CACHE", "/ours", 1);
  CHECK_EQ(place(), "/ours/kernels/" + name);
  EngineEntry unlisted = engine;
  unlisted.file = "other.engine";
  CHECK_EQ(default_runtime_cache(bundle, unlisted, "x")->filename().string(), "unlisted-x.cache");
}
#endif

#ifndef _WIN32
TEST(device_kernels_are_kept_in_a_folder_that_is_made_or_nowhere) {
  const Bundle bundle = make_bundle();
  TensorRtOptions options;
  options.runtime_cache = fs::path(scratch("fresh")) / "elastic-runtime" / "kernels" / "a.cache";
  backend_of(bundle, options);
  CHECK_EQ(fs::file_size(*options.runtime_cache), 1u);
  options.runtime_cache =
      "/dev/null/kernels/a.cache";  // as a disk that takes nothing: an engine runs without
  Session session(backend_of(bundle, options));
  drive(session);
}
#endif
