#include <filesystem>
#include <fstream>

#include "check.h"
#include "elastic_runtime/bundle.h"
#include "elastic_runtime/onnx_backend.h"
#include "elastic_runtime/sha256.h"
#include "elastic_runtime/tensorrt_backend.h"
#include "files.h"

using namespace elastic;
using namespace elastic_test;
namespace fs = std::filesystem;

namespace {

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

/// The small manifest of errors.json as a bundle on disk: its engine has 17 bytes, its model 18.
fs::path make_bundle(const std::string& name) {
  const fs::path folder = scratch(name);
  const std::string engine(17, 'e'), model(18, 'm');
  std::string manifest = text(at(at(golden("errors.json"), "manifest"), "base"));
  const auto put = [&](const std::string& path, const std::string& digest) {
    const auto place = manifest.find("\"sha256\": \"", manifest.find("\"path\": \"" + path)) + 11;
    manifest.replace(place, 64, digest);
  };
  put("small/a.engine", sha256(engine));
  put("small/model.onnx", sha256(model));
  write(folder / "small/a.engine", engine);
  write(folder / "small/model.onnx", model);
  write(folder / "manifest.json", reseal(manifest));
  return folder;
}

}  // namespace

TEST(bundle_opens_and_answers) {
  const Bundle bundle = Bundle::open(make_bundle("opens"), Check::kDigests);
  CHECK_EQ(bundle.budget("small").parameters, 100);
  CHECK_EQ(std::string(THROWN(InputError, bundle.budget("big")).what()),
           "budget 'big': expected one of small, found no such budget in the bundle.");
  CHECK_EQ(bundle.choose({kGib, 64, 2, {}}).chosen()->engine->file, "small/a.engine");
  CHECK_EQ(THROWN(InputError, bundle.weights(bundle.budget("small"))).found, "embedded ones");
}

TEST(bundle_what_is_none_says_what_it_is) {
  const fs::path folder = scratch("none");
  fs::create_directories(folder / "empty");
  fs::create_directories(folder / "strange" / "manifest.json");
  write(folder / "file", "");
  for (const auto& [name, found] : {std::pair{"empty", "no manifest.json in it"},
                                    {"strange", "no manifest.json in it"},
                                    {"file", "a file"},
                                    {"absent", "no such folder"}}) {
    const InputError error = THROWN(InputError, Bundle::open(folder / name));
    CHECK_EQ(std::string(error.what()), error.subject + ": expected a bundle, found " + found +
                                            ". Name the folder that elastic-export wrote.");
    CHECK_EQ(fs::path(error.subject).filename().string(), name);
  }
}

TEST(bundle_every_changed_file_is_found_and_named) {
  const fs::path folder = make_bundle("changed");
  write(folder / "small/model.onnx", std::string(18, 'n'));
  DamageError damage = THROWN(DamageError, Bundle::open(folder));
  CHECK_EQ(fs::path(damage.subject).filename().string(), "model.onnx");
  CHECK_EQ(damage.exit_code(), 1);
  write(folder / "small/model.onnx", "short");
  CHECK_EQ(THROWN(DamageError, Bundle::open(folder)).found, "5");
  fs::remove(folder / "small/model.onnx");
  CHECK_EQ(THROWN(DamageError, Bundle::open(folder)).found, "none");
}

TEST(bundle_every_flipped_bit_of_the_manifest_is_found) {
  const std::string whole = text(at(at(golden("errors.json"), "manifest"), "base"));
  parse_manifest(whole);
  for (std::size_t bit = 0; bit < whole.size() * 8; bit += 13) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    CHECK(!is_sealed(flipped));
  }
}

TEST(bundle_links_do_not_lead_out) {
  const fs::path folder = make_bundle("links");
  write(folder.parent_path() / "outside", std::string(18, 'm'));
  fs::remove(folder / "small/model.onnx");
  std::error_code unsupported;
  fs::create_symlink(folder.parent_path() / "outside", folder / "small/model.onnx", unsupported);
  if (unsupported) return;  // Windows without the right to make links
  CHECK_EQ(THROWN(InputError, Bundle::open(folder)).todo, "replace the link by the file");
}

TEST(bundle_a_link_to_itself_is_refused) {
  const fs::path folder = make_bundle("loop");
  fs::remove(folder / "small/model.onnx");
  std::error_code unsupported;
  fs::create_symlink("model.onnx", folder / "small/model.onnx", unsupported);
  if (unsupported) return;  // Windows without the right to make links
  const InputError error = THROWN(InputError, Bundle::open(folder));
  CHECK_EQ(error.subject, "small/model.onnx");
  CHECK_EQ(error.expected, "a file inside " + path_text(folder));
  CHECK_EQ(error.todo, "replace the link by the file");
  CHECK_EQ(THROWN(InputError, read_json(folder / "small/model.onnx")).found, "no such file");
  fs::remove(folder / "manifest.json");
  fs::create_symlink("manifest.json", folder / "manifest.json");
  CHECK_EQ(THROWN(InputError, Bundle::open(folder)).expected, "a bundle");
}

TEST(bundle_a_folder_of_weights_for_one_that_holds_its_own_is_refused) {
  const fs::path folder = make_bundle("owner");
  CHECK_EQ(std::string(THROWN(InputError, Bundle::open(folder, Check::kSizes, folder / "small")).what()),
           "weights folder " + path_text(folder / "small") + ": expected none: " + path_text(folder) +
               " holds its weights, found one. Leave it out.");
}

TEST(bundle_backends_that_are_not_there_say_so) {
  const Bundle bundle = Bundle::open(make_bundle("backends"));
  const BudgetEntry& budget = bundle.budget("small");
  if (!has_onnx_backend()) {
    CHECK_EQ(THROWN(UnavailableError, make_onnx_backend(bundle, budget)).exit_code(), 1);
  }
  if (!has_tensorrt_backend()) {
    CHECK_EQ(THROWN(UnavailableError, make_tensorrt_backend(bundle, budget, budget.engines[0])).found,
             "one built without");
    CHECK(!current_device());
  }
}

TEST(bundle_reading_its_files_can_be_ended) {
  const fs::path folder = make_bundle("ended");
  const auto enough = [](std::size_t) { throw std::string("enough"); };
  CHECK_EQ(THROWN(std::string, Bundle::open(folder, Check::kDigests, std::nullopt, enough)), "enough");
}
