#include "text/byte_letters.h"

#include <array>

#include "unicode.h"

namespace elastic {
namespace {

constexpr char32_t kFirstOther = 0x100;  // of the letters for bytes that cannot be printed
constexpr std::size_t kLetters = kFirstOther + 68;

struct Table {
  std::array<char32_t, 256> letter{};
  std::array<int, kLetters> byte{};

  Table() {
    byte.fill(-1);
    char32_t other = kFirstOther;
    for (char32_t b = 0; b < 256; ++b) {
      const bool plain = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      letter[b] = plain ? b : other++;
      byte[letter[b]] = static_cast<int>(b);
    }
  }
};

const Table& table() {
  static const Table made;
  return made;
}

}  // namespace

std::string letters_of(std::string_view bytes) {
  std::string letters;
  for (const char sign : bytes) {
    const char32_t point = table().letter[static_cast<unsigned char>(sign)];
    if (point >= 0x80) letters += static_cast<char>(0xC0 | point >> 6);
    letters += static_cast<char>(point < 0x80 ? point : 0x80 | (point & 0x3F));
  }
  return letters;
}

std::optional<std::string> bytes_of_letters(std::string_view letters) {
  std::string bytes;
  for (std::size_t at = 0; at < letters.size();) {
    const char32_t point = next_code_point(letters, at);
    const int byte = point < kLetters ? table().byte[point] : -1;
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

}  // namespace elastic
