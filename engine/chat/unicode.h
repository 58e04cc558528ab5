// Characters as Python's str sees them. Every string in here is valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sirocco::jinja {

bool IsValidUtf8(std::string_view text);

struct Character {
  int32_t code = 0;
  size_t size = 0;  // bytes
};
// `offset` is the start of a character before the end of the text.
Character CharacterAt(std::string_view text, size_t offset);
// The start of the last character before `offset`, which is a start itself and not 0.
size_t PreviousCharacter(std::string_view text, size_t offset);

// `code` is a Unicode scalar value.
void AppendUtf8(int32_t code, std::string* out);
bool IsScalarValue(int64_t code);

size_t CountCharacters(std::string_view text);
// The byte offset of the `index`-th character; text.size() where there are fewer.
size_t CharacterOffset(std::string_view text, size_t index);

// str.isspace, which is also what strip() and the regular expression \s take for space.
bool IsSpace(int32_t code);
// Where str.splitlines() splits.
bool IsLineBreak(int32_t code);
bool IsPrintable(int32_t code);
bool IsAlpha(int32_t code);
bool IsDecimal(int32_t code);
bool IsDigit(int32_t code);
bool IsNumeric(int32_t code);
bool IsUpper(int32_t code);
bool IsLower(int32_t code);
bool IsCased(int32_t code);
bool IsIdentifierStart(int32_t code);
bool IsIdentifierPart(int32_t code);

// Full case mappings: one character may become up to three.
void AppendUpper(int32_t code, std::string* out);
void AppendTitle(int32_t code, std::string* out);
// Greek sigma at the end of a word is the caller's affair.
void AppendLower(int32_t code, std::string* out);

}  // namespace sirocco::jinja
