#include "elastic_runtime/forms.h"

#include "elastic_runtime/error.h"

namespace elastic {
namespace {

using Entries = std::vector<const BudgetEntry*>;

template <typename Takes>
Entries those(const Manifest& manifest, const Takes& takes) {
  Entries found;
  for (const BudgetEntry& entry : manifest.budgets) {  // in order as they were read
    if (takes(entry)) found.push_back(&entry);
  }
  return found;
}

std::string names_of(const Entries& entries) {
  std::string names;
  for (const BudgetEntry* entry : entries) names += (names.empty() ? "" : ", ") + entry->name;
  return names;
}

[[noreturn]] void fail(const Manifest& manifest, const std::string& name) {
  const std::size_t dot = name.rfind('.');
  const std::string subject = "budget " + in_quotes(name);
  const Entries others = those(manifest, [&](const BudgetEntry& entry) {
    return dot != std::string::npos && entry.budget() == name.substr(0, dot);
  });
  if (!others.empty())
    throw InputError(subject, "a form in which the bundle has it: " + names_of(others),
                     "none in " + name.substr(dot + 1),
                     "name that one, or export the other one into the bundle with --add");
  const Entries all = those(manifest, [](const BudgetEntry&) { return true; });
  throw InputError(subject, "one of " + names_of(all), "no such budget in the bundle");
}

}  // namespace

Entries forms_of(const Manifest& manifest, const std::string& name) {
  Entries found =
      those(manifest, [&](const BudgetEntry& entry) { return name == "auto" || entry.budget() == name; });
  if (found.empty()) {
    found = those(manifest, [&](const BudgetEntry& entry) {
      return entry.budget() + "." + entry.quantisation.value_or(manifest.precision) == name;
    });
  }
  if (found.empty()) fail(manifest, name);
  return found;
}

}  // namespace elastic
