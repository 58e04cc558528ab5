#include "engine/chat/string_literal.h"

#include <array>
#include <cstdint>
#include <cstdio>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

// Escapes of one character: the letter and what it stands for.
constexpr std::string_view kLetters = "\\'\"abfnrtv";
constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";

// Hexadecimal digits behind \x, \u and \U.
size_t HexDigits(char letter) {
  return letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
}

int HexValue(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(digit));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Appends the character that is escaped at `*at`, just behind the backslash, and moves behind it.
absl::Status AppendEscape(std::string_view content, size_t* at, std::string* out) {
  const char letter = content[*at];
  if (letter == '\n') {
    ++*at;  // a line that goes on
    return absl::OkStatus();
  }
  if (const size_t simple = kLetters.find(letter); simple != std::string_view::npos) {
    out->push_back(kMeanings[simple]);
    ++*at;
    return absl::OkStatus();
  }
  if (letter == 'N') {
    return absl::InvalidArgumentError("characters by name, \\N{...}, are not supported");
  }
  int64_t code = 0;
  if (const size_t digits = HexDigits(letter); digits != 0) {
    for (size_t i = 1; i <= digits; ++i) {
      const int value = *at + i < content.size() ? HexValue(content[*at + i]) : -1;
      if (value < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("truncated \\", std::string(1, letter), " escape"));
      }
      code = code * 16 + value;
    }
    *at += digits + 1;
  } else if (letter >= '0' && letter <= '7') {
    for (int i = 0; i < 3 && *at < content.size(); ++i, ++*at) {
      if (content[*at] < '0' || content[*at] > '7') break;
      code = code * 8 + (content[*at] - '0');
    }
  } else if (static_cast<unsigned char>(letter) < 0x80) {
    out->append({'\\', letter});
    ++*at;
    return absl::OkStatus();
  } else {
    // jinja2 turns characters beyond ASCII into escapes of their own, whose backslash this one
    // escapes.
    const Character character = CharacterAt(content, *at);
    const auto value = static_cast<unsigned>(character.code);
    std::array<char, 16> escape;
    const char* format = value < 0x100 ? "\\x%02x" : value < 0x10000 ? "\\u%04x" : "\\U%08x";
    std::snprintf(escape.data(), escape.size(), format, value);
    out->append(escape.data());
    *at += character.size;
    return absl::OkStatus();
  }
  if (!IsScalarValue(code)) {
    return absl::InvalidArgumentError("an escape is no Unicode character");
  }
  AppendUtf8(static_cast<int32_t>(code), out);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ResolveEscapes(std::string_view content) {
  std::string resolved;
  resolved.reserve(content.size());
  for (size_t at = 0; at < content.size();) {
    if (content[at] != '\\' || at + 1 >= content.size()) {
      resolved.push_back(content[at++]);
      continue;
    }
    ++at;
    if (const absl::Status status = AppendEscape(content, &at, &resolved); !status.ok()) {
      return status;
    }
  }
  return resolved;
}

}  // namespace sirocco::jinja
