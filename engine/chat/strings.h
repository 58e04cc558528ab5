// What Python's str can do, for methods and filters alike. Bytes that are kept keep their
// provenance.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/chat/runtime.h"
#include "engine/chat/text.h"

namespace sirocco::jinja {

enum class CaseMapping {
  kUpper,
  kLower,
  kSwap,
  kCapitalize,  // the first character in title case, the others in lower case
  kTitle,       // str.title(): words are runs of letters
  kTitleFilter  // the filter: words are divided by spaces, hyphens and opening brackets
};
ValueOr MapCase(Runtime& runtime, const Text& text, CaseMapping mapping);

// What is left in [begin, end) after stripping `characters`, or space where absent.
std::pair<size_t, size_t> StripRange(std::string_view text,
                                     std::optional<std::string_view> characters, bool left,
                                     bool right);

// At most `count` replacements; all where negative.
ValueOr Replace(Runtime& runtime, const Text& text, const Text& old_text, const Text& new_text,
                int64_t count);

// str() of every item with the separator between them.
ValueOr Join(Runtime& runtime, const Text& separator, const std::vector<Value>& items);

// Padded with `fill` to `width` characters: '<', '>' or '^' as Python's ljust, rjust and center.
ValueOr Pad(Runtime& runtime, const Text& text, int64_t width, char align, const Text& fill);

// The characters from the last to the first.
ValueOr Reverse(Runtime& runtime, const Text& text);

// & < > " ' as HTML entities, as trusted as the character was.
ValueOr EscapeHtml(Runtime& runtime, const Text& text);

// Lines as str.splitlines() gives them.
ValueOr SplitLines(Runtime& runtime, const Text& text, bool keep_ends);

// The offset of the first (or last) `part` that lies in [begin, end) of the text, or npos. Linear;
// takes steps for what it looks through.
absl::StatusOr<size_t> FindText(Meter& meter, std::string_view text, std::string_view part,
                                size_t begin, size_t end, bool last = false);

// Names in messages: the beginning of a long one.
std::string Shortened(std::string_view text);

}  // namespace sirocco::jinja
