// UTF-8: checking, reading, and replacing what is not valid the way Rust's String::from_utf8_lossy
// does (Unicode 15, section 3.9, "U+FFFD Substitution of Maximal Subparts").
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sirocco {

// What stands at a place in a run of bytes.
struct Utf8Unit {
  enum class Kind {
    kValid,      // one character
    kInvalid,    // a maximal subpart that no further bytes can complete
    kTruncated,  // the bytes end within a character
  };
  Kind kind;
  size_t length;  // bytes, 1 ... 4
};

// `pos` must be less than bytes.size().
Utf8Unit ScanUtf8(std::string_view bytes, size_t pos);

// The offset of the first byte that is not part of valid UTF-8; bytes.size() if all are.
size_t FindInvalidUtf8(std::string_view bytes);

// The character at *pos of valid UTF-8; *pos moves behind it and must be less than text.size().
char32_t ReadUtf8(std::string_view text, size_t* pos);

// Where the character before `pos` begins; pos must be greater than 0 and stand at a boundary.
size_t PreviousUtf8(std::string_view text, size_t pos);

void AppendUtf8(char32_t code_point, std::string* out);

// Moves whole characters from *bytes to *out, with one U+FFFD for each maximal invalid subpart, or
// for `each_byte` of it. What may still become a character, at most 3 bytes, stays in *bytes.
void TakeWholeUtf8(bool each_byte, std::string* bytes, std::string* out);

// The property White_Space (PropList.txt): `\s` in Oniguruma and in Rust's regex.
bool IsWhiteSpace(char32_t code_point);

}  // namespace sirocco
