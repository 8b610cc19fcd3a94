// The letters that stand for bytes in a byte-level vocabulary (GPT-2's table).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace elastic {

/// Bytes as a vocabulary writes them: printable ones of Latin-1 for themselves, the others from U+0100 on.
std::string letters_of(std::string_view bytes);

/// The bytes of a token; nullopt where it has a character that stands for none.
std::optional<std::string> bytes_of_letters(std::string_view letters);

}  // namespace elastic
