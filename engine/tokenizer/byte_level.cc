#include "engine/tokenizer/byte_level.h"

#include <array>

#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

struct Alphabet {
  std::array<char32_t, 256> character;
  std::array<int16_t, 512> byte;  // by character; -1: none
};

// Printable characters of Latin-1 stand for themselves, the others for U+0100 on, in order.
Alphabet MakeAlphabet() {
  Alphabet alphabet;
  alphabet.byte.fill(-1);
  char32_t next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const char32_t c = printable ? static_cast<char32_t>(b) : next++;
    alphabet.character[b] = c;
    alphabet.byte[c] = static_cast<int16_t>(b);
  }
  return alphabet;
}

const Alphabet& TheAlphabet() {
  static const Alphabet alphabet = MakeAlphabet();
  return alphabet;
}

}  // namespace

std::string ByteLevelCharacter(uint8_t byte) {
  std::string out;
  AppendUtf8(TheAlphabet().character[byte], &out);
  return out;
}

std::optional<std::string> ByteLevelDecode(std::string_view entry) {
  const Alphabet& alphabet = TheAlphabet();
  if (FindInvalidUtf8(entry) != entry.size()) return std::nullopt;
  std::string bytes;
  bytes.reserve(entry.size());
  for (size_t pos = 0; pos < entry.size();) {
    const char32_t c = ReadUtf8(entry, &pos);
    if (c >= alphabet.byte.size() || alphabet.byte[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet.byte[c]));
  }
  return bytes;
}

}  // namespace sirocco
