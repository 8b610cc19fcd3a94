// The forms in which a bundle may hold one budget: in its own precision, and quantised. Same as forms.py.
//
//     6b        the budget, in whichever of its forms fits: unquantised where it does
//     6b.bf16   unquantised, in the bundle's precision
//     6b.int8   in eight bits; so that entry of the manifest is called, and its folder
#pragma once

#include <string>
#include <vector>

#include "elastic_runtime/manifest.h"

namespace elastic {

/// The entries that a name stands for, in the order in which they are chosen; at least one.
/// @param name of a budget, of one form of it, or `auto` for all budgets
/// Throws InputError: no such budget, or not in that form; it says what there is. Points into the manifest.
std::vector<const BudgetEntry*> forms_of(const Manifest& manifest, const std::string& name);

}  // namespace elastic
