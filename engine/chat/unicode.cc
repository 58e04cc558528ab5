#include "engine/chat/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

namespace sirocco::jinja {
namespace {

struct Expansion {
  int32_t code;
  std::array<int32_t, 3> upper;
  std::array<int32_t, 3> title;
};

constexpr Expansion kExpansions[] = {
#include "engine/chat/unicode_case_table.inc"
};

const Expansion* FindExpansion(int32_t code) {
  const Expansion* found =
      std::lower_bound(std::begin(kExpansions), std::end(kExpansions), code,
                       [](const Expansion& row, int32_t wanted) { return row.code < wanted; });
  return found != std::end(kExpansions) && found->code == code ? found : nullptr;
}

void AppendAll(const std::array<int32_t, 3>& codes, std::string* out) {
  for (const int32_t code : codes) {
    if (code != 0) AppendUtf8(code, out);
  }
}

bool IsContinuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

bool IsValidUtf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  size_t offset = 0;
  while (offset < text.size()) {
    if (bytes[offset] < 0x80) {
      ++offset;
      continue;
    }
    // No character is longer than 4 bytes; the cap also keeps the length within the library's type.
    const auto left = static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size() - offset, 4));
    utf8proc_int32_t code = 0;
    const utf8proc_ssize_t size = utf8proc_iterate(bytes + offset, left, &code);
    if (size <= 0) return false;
    offset += static_cast<size_t>(size);
  }
  return true;
}

Character CharacterAt(std::string_view text, size_t offset) {
  const auto first = static_cast<unsigned char>(text[offset]);
  if (first < 0x80) return {first, 1};
  const auto left = static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size() - offset, 4));
  utf8proc_int32_t code = 0;
  const utf8proc_ssize_t size = utf8proc_iterate(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data() + offset), left, &code);
  if (size <= 0) return {0xFFFD, 1};
  return {code, static_cast<size_t>(size)};
}

size_t PreviousCharacter(std::string_view text, size_t offset) {
  do {
    --offset;
  } while (offset > 0 && IsContinuation(text[offset]));
  return offset;
}

void AppendUtf8(int32_t code, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t size = utf8proc_encode_char(code, bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

bool IsScalarValue(int64_t code) {
  return code >= 0 && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
}

size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char byte) { return !IsContinuation(byte); }));
}

size_t CharacterOffset(std::string_view text, size_t index) {
  size_t offset = 0;
  while (offset < text.size()) {
    if (!IsContinuation(text[offset])) {
      if (index == 0) return offset;
      --index;
    }
    ++offset;
  }
  return text.size();
}

bool IsSpace(int32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
         code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool IsLineBreak(int32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

bool IsPrintable(int32_t code) {
  if (code == ' ') return true;
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

bool IsAlpha(int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return true;
    default:
      return false;
  }
}

bool IsDecimal(int32_t code) { return utf8proc_category(code) == UTF8PROC_CATEGORY_ND; }

bool IsDigit(int32_t code) {
  // Superscripts and circled digits count as digits, though not as decimals.
  return IsDecimal(code) || code == 0xB2 || code == 0xB3 || code == 0xB9 || code == 0x2070 ||
         (code >= 0x2074 && code <= 0x2079) || (code >= 0x2080 && code <= 0x2089) ||
         (code >= 0x2460 && code <= 0x2468);
}

bool IsNumeric(int32_t code) {
  const auto category = utf8proc_category(code);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

bool IsUpper(int32_t code) { return utf8proc_category(code) == UTF8PROC_CATEGORY_LU; }

bool IsLower(int32_t code) {
  return utf8proc_category(code) == UTF8PROC_CATEGORY_LL || code == 0xAA || code == 0xBA;
}

bool IsCased(int32_t code) {
  return IsUpper(code) || IsLower(code) || utf8proc_category(code) == UTF8PROC_CATEGORY_LT;
}

bool IsIdentifierStart(int32_t code) {
  return code == '_' || IsAlpha(code) || utf8proc_category(code) == UTF8PROC_CATEGORY_NL;
}

bool IsIdentifierPart(int32_t code) {
  if (IsIdentifierStart(code)) return true;
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

void AppendUpper(int32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code >= 'a' && code <= 'z' ? code - 'a' + 'A' : code));
  } else if (const Expansion* expansion = FindExpansion(code)) {
    AppendAll(expansion->upper, out);
  } else {
    AppendUtf8(utf8proc_toupper(code), out);
  }
}

void AppendTitle(int32_t code, std::string* out) {
  if (code < 0x80) {
    AppendUpper(code, out);
  } else if (const Expansion* expansion = FindExpansion(code)) {
    AppendAll(expansion->title, out);
  } else {
    AppendUtf8(utf8proc_totitle(code), out);
  }
}

void AppendLower(int32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code >= 'A' && code <= 'Z' ? code - 'A' + 'a' : code));
  } else if (code == 0x130) {
    out->append("i\xCC\x87");  // LATIN CAPITAL LETTER I WITH DOT ABOVE keeps its dot
  } else {
    AppendUtf8(utf8proc_tolower(code), out);
  }
}

}  // namespace sirocco::jinja
