// A bundle on disk: opened, checked, asked.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "elastic_runtime/choose.h"
#include "elastic_runtime/error.h"
#include "elastic_runtime/forms.h"
#include "elastic_runtime/manifest.h"
#include "elastic_runtime/weights.h"

namespace elastic {

enum class Check {
  kSizes,    ///< every file's size, and the digest of those up to 1 MiB
  kDigests,  ///< the digest of all of them
};

class Bundle {
 public:
  /// Read the manifest and check the files it lists.
  /// @param external the folder of external weights; without it they are not checked
  /// @param on_bytes hears of every piece that was read for a digest
  /// Throws InputError (not a bundle, or one of another version; `external` for one that holds its weights)
  /// or DamageError (a file is missing or another one).
  static Bundle open(const std::filesystem::path& path, Check check = Check::kSizes,
                     const std::optional<std::filesystem::path>& external = std::nullopt,
                     const std::function<void(std::size_t)>& on_bytes = {});

  const std::filesystem::path& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }

  /// The budget of that name; where the bundle has it in several forms, the unquantised one. Throws
  /// InputError that lists them.
  const BudgetEntry& budget(const std::string& name) const { return *forms(name).front(); }

  /// What a name stands for, in the order in which it is chosen (forms.h). Throws InputError that lists what
  /// there is.
  std::vector<const BudgetEntry*> forms(const std::string& name) const { return forms_of(manifest_, name); }

  /// The largest budget that fits (choose.h), or the first of the `forms` of one. The choice points into this
  /// bundle.
  Choice choose(const Request& request, const std::string& budget = "auto") const;

  /// Where its weights come from. Throws InputError when they are embedded in model and engine, or of a
  /// quantised parent that is another's.
  WeightRecipe recipe(const BudgetEntry& budget) const;

  /// Its weights, mapped. Throws InputError as `recipe`, and where a file is missing or too short.
  WeightFiles weights(const BudgetEntry& budget) const;

  /// The file of that path in the bundle; it does not lead out of it.
  std::filesystem::path file(const std::string& path) const;

 private:
  std::filesystem::path path_;
  std::optional<std::filesystem::path> external_;
  Manifest manifest_;
};

/// Compare a file with its entry. Throws DamageError that names it.
void check_file(const std::filesystem::path& path, const FileEntry& entry, Check check,
                const std::function<void(std::size_t)>& on_bytes = {});

}  // namespace elastic
