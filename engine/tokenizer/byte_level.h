// The alphabet of byte-level vocabularies: every byte is written as one printable character.
// https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode
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

}  // namespace sirocco
