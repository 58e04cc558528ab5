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

std::string ByteFallbackToken(uint8_t byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

std::optional<uint8_t> ByteFallbackDecode(std::string_view entry) {
  if (entry.size() != 6 || entry.substr(0, 3) != "<0x" || entry[5] != '>') return std::nullopt;
  int byte = 0;
  for (const char c : entry.substr(3, 2)) {
    const char lower = static_cast<char>(c | 0x20);
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (lower < 'a' || lower > 'f')) return std::nullopt;
    byte = byte * 16 + (digit ? c - '0' : lower - 'a' + 10);
  }
  return static_cast<uint8_t>(byte);
}

}  // namespace sirocco
