// How vocabularies spell bytes. Byte-level ones write every byte as one printable character:
// https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode
// Others have entries <0x00> to <0xFF> for characters that they lack:
// https://github.com/google/sentencepiece/blob/master/src/model_interface.cc, ByteToPiece
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sirocco {

// The character of a byte, as UTF-8.
std::string ByteLevelCharacter(uint8_t byte);

// The bytes that a vocabulary entry spells; nullopt where a character is not of the alphabet
// (or the entry is not UTF-8).
std::optional<std::string> ByteLevelDecode(std::string_view entry);

// The entry of a byte: <0x0A>.
std::string ByteFallbackToken(uint8_t byte);

// The byte that an entry <0x0A> stands for, by whatever hexadecimal digits; nullopt: it is none.
std::optional<uint8_t> ByteFallbackDecode(std::string_view entry);

}  // namespace sirocco
