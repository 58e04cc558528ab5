// One value in a format: what "%-5.2f" and "{:<5.2f}" have in common.
#pragma once

#include <cstdint>
#include <string>

#include "engine/chat/runtime.h"
#include "engine/chat/text.h"

namespace sirocco::jinja {

struct FormatSpec {
  std::string fill = " ";  // one character
  char align = 0;          // '<', '>', '^', '='; 0: left for text, right for numbers
  char sign = '-';         // '-', '+', ' '
  bool alternate = false;  // 0x, 0o, 0b
  int64_t width = 0;
  int precision = -1;
  char grouping = 0;  // ',' or '_' every three digits
  char type = 0;      // 0: as str() where there is no precision
};

// The most digits behind the point that are asked for.
inline constexpr int kMaxPrecision = 300;

// Appends the value; the padding is as trusted as the format is.
absl::Status AppendFormatted(Runtime& runtime, const Value& value, const FormatSpec& spec,
                             bool format_trusted, TextBuilder* out);
// A text with the width and precision of `spec`.
void AppendPadded(const Text& text, const FormatSpec& spec, bool format_trusted, TextBuilder* out);

}  // namespace sirocco::jinja
