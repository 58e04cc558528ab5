#include "engine/tokenizer/utf8.h"

#include <cstdint>

namespace sirocco {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bytes a lead byte announces, and the range of the second one (it excludes overlong forms,
// surrogates and what lies beyond U+10FFFF). length 0: no character begins so.
struct Lead {
  uint8_t length;
  uint8_t second_min;
  uint8_t second_max;
};

Lead ReadLead(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Unit ScanUtf8(std::string_view bytes, size_t pos) {
  const Lead lead = ReadLead(static_cast<uint8_t>(bytes[pos]));
  if (lead.length == 0) return {Utf8Unit::Kind::kInvalid, 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (pos + i >= bytes.size()) return {Utf8Unit::Kind::kTruncated, i};
    const auto byte = static_cast<uint8_t>(bytes[pos + i]);
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (byte < low || byte > high) return {Utf8Unit::Kind::kInvalid, i};
  }
  return {Utf8Unit::Kind::kValid, lead.length};
}

size_t FindInvalidUtf8(std::string_view bytes) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    if (static_cast<uint8_t>(bytes[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const Utf8Unit unit = ScanUtf8(bytes, pos);
    if (unit.kind != Utf8Unit::Kind::kValid) return pos;
    pos += unit.length;
  }
  return pos;
}

char32_t ReadUtf8(std::string_view text, size_t* pos) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[*pos + i]); };
  const char32_t first = byte(0);
  char32_t result = first;
  size_t length = 1;
  if (first >= 0xF0) {
    result =
        (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    length = 4;
  } else if (first >= 0xE0) {
    result = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    length = 3;
  } else if (first >= 0x80) {
    result = (first & 0x1F) << 6 | (byte(1) & 0x3F);
    length = 2;
  }
  *pos += length;
  return result;
}

size_t PreviousUtf8(std::string_view text, size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<uint8_t>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

void AppendUtf8(char32_t code_point, std::string* out) {
  const auto put = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

void TakeWholeUtf8(bool each_byte, std::string* bytes, std::string* out) {
  size_t pos = 0;
  while (pos < bytes->size()) {
    const Utf8Unit unit = ScanUtf8(*bytes, pos);
    if (unit.kind == Utf8Unit::Kind::kTruncated) break;
    if (unit.kind == Utf8Unit::Kind::kValid) {
      out->append(*bytes, pos, unit.length);
    } else {
      for (size_t i = 0; i < (each_byte ? unit.length : 1); ++i) out->append(kReplacement);
    }
    pos += unit.length;
  }
  bytes->erase(0, pos);
}

bool IsWhiteSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace sirocco
