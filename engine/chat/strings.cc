#include "engine/chat/strings.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

// Applies `map(code, offset, &out)` to every character; what it appends is as trusted as the
// character was.
template <typename Map>
ValueOr MapCharacters(Runtime& runtime, const Text& text, const Map& map) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
  TextBuilder builder(runtime);
  size_t offset = 0;
  std::string mapped;
  for (const Text::Run& run : text.runs()) {
    while (offset < run.end && builder.ok()) {
      // In pieces, so that the limit is met before much more memory is taken.
      constexpr size_t kPieceBytes = 4096;
      mapped.clear();
      while (offset < run.end && mapped.size() < kPieceBytes) {
        const Character character = CharacterAt(text.bytes(), offset);
        map(character.code, offset, &mapped);
        offset += character.size;
      }
      builder.Append(mapped, run.trusted);
    }
  }
  return builder.Finish();
}

constexpr int32_t kCapitalSigma = 0x3A3;
constexpr int32_t kFinalSigma = 0x3C2;

// Sigma is written otherwise at the end of a word.
bool IsFinalSigma(std::string_view text, size_t offset) {
  if (offset == 0) return false;
  const Character before = CharacterAt(text, PreviousCharacter(text, offset));
  const size_t after = offset + CharacterAt(text, offset).size;
  return IsCased(before.code) && (after >= text.size() || !IsCased(CharacterAt(text, after).code));
}

void AppendLowerAt(std::string_view text, int32_t code, size_t offset, std::string* out) {
  if (code == kCapitalSigma && IsFinalSigma(text, offset)) {
    AppendUtf8(kFinalSigma, out);
  } else {
    AppendLower(code, out);
  }
}

// The title filter divides words here.
bool IsWordDivider(int32_t code) {
  return code == '-' || code == '(' || code == '{' || code == '[' || code == '<' || IsSpace(code);
}

bool IsAmong(std::string_view characters, int32_t code) {
  for (size_t offset = 0; offset < characters.size();) {
    const Character candidate = CharacterAt(characters, offset);
    if (candidate.code == code) return true;
    offset += candidate.size;
  }
  return false;
}

absl::StatusOr<size_t> FindLast(Meter& meter, std::string_view text, std::string_view part,
                                size_t begin, size_t end) {
  size_t offset = end - part.size();
  while (true) {
    SIROCCO_CHAT_RETURN_IF_ERROR(meter.Step(static_cast<int64_t>(part.size() >> 5)));
    if (text.substr(offset, part.size()) == part) break;
    if (offset == begin) {
      offset = std::string_view::npos;
      break;
    }
    // To the next place where it may begin.
    const void* next = memrchr(text.data() + begin, part.front(), offset - begin);
    if (next == nullptr) {
      offset = std::string_view::npos;
      break;
    }
    offset = static_cast<size_t>(static_cast<const char*>(next) - text.data());
  }
  const size_t scanned = end - (offset == std::string_view::npos ? begin : offset);
  SIROCCO_CHAT_RETURN_IF_ERROR(meter.StepCharacters(scanned));
  return offset;
}

}  // namespace

ValueOr MapCase(Runtime& runtime, const Text& text, CaseMapping mapping) {
  const std::string_view bytes = text.bytes();
  bool inside = false;  // a word, or behind the first character
  return MapCharacters(runtime, text, [&](int32_t code, size_t offset, std::string* out) {
    switch (mapping) {
      case CaseMapping::kUpper:
        return AppendUpper(code, out);
      case CaseMapping::kLower:
        return AppendLowerAt(bytes, code, offset, out);
      case CaseMapping::kSwap:
        return IsUpper(code) ? AppendLowerAt(bytes, code, offset, out) : AppendUpper(code, out);
      case CaseMapping::kCapitalize:
        if (offset == 0) return AppendTitle(code, out);
        return AppendLowerAt(bytes, code, offset, out);
      case CaseMapping::kTitle:
        inside ? AppendLowerAt(bytes, code, offset, out) : AppendTitle(code, out);
        inside = IsCased(code);
        return;
      case CaseMapping::kTitleFilter:
        inside ? AppendLowerAt(bytes, code, offset, out) : AppendUpper(code, out);
        inside = !IsWordDivider(code);
        return;
    }
  });
}

std::pair<size_t, size_t> StripRange(std::string_view text,
                                     std::optional<std::string_view> characters, bool left,
                                     bool right) {
  const auto strips = [&](int32_t code) {
    return characters.has_value() ? IsAmong(*characters, code) : IsSpace(code);
  };
  size_t begin = 0;
  size_t end = text.size();
  while (left && begin < end) {
    const Character character = CharacterAt(text, begin);
    if (!strips(character.code)) break;
    begin += character.size;
  }
  while (right && end > begin) {
    const size_t previous = PreviousCharacter(text, end);
    if (!strips(CharacterAt(text, previous).code)) break;
    end = previous;
  }
  return {begin, end};
}

ValueOr Replace(Runtime& runtime, const Text& text, const Text& old_text, const Text& new_text,
                int64_t count) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepBytes(text.size()));
  TextBuilder builder(runtime);
  size_t copied = 0;
  size_t from = 0;
  while (count != 0 && builder.ok()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        const size_t found,
        FindText(runtime.meter(), text.bytes(), old_text.bytes(), from, text.size()));
    if (found == std::string_view::npos) break;
    builder.Append(text, copied, found);
    builder.Append(new_text);
    copied = found + old_text.size();
    from = copied;
    if (count > 0) --count;
    if (!old_text.empty()) continue;
    // Nothing is found before every character and at the end.
    if (found >= text.size()) break;
    from = found + CharacterAt(text.bytes(), found).size;
  }
  builder.Append(text, copied, text.size());
  return builder.Finish();
}

ValueOr Join(Runtime& runtime, const Text& separator, const std::vector<Value>& items) {
  TextBuilder builder(runtime);
  for (size_t i = 0; i < items.size() && builder.ok(); ++i) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    if (i > 0) builder.Append(separator);
    SIROCCO_CHAT_RETURN_IF_ERROR(AppendStr(runtime, items[i], &builder));
  }
  return builder.Finish();
}

ValueOr Pad(Runtime& runtime, const Text& text, int64_t width, char align, const Text& fill) {
  const auto length = static_cast<int64_t>(CountCharacters(text.bytes()));
  const int64_t room = width > length ? width - length : 0;
  // Python's center puts the odd space on the left where the width is odd.
  const int64_t before = align == '>' ? room : align == '^' ? room / 2 + (room & width & 1) : 0;
  TextBuilder builder(runtime);
  builder.AppendRepeated(fill, before);
  builder.Append(text);
  builder.AppendRepeated(fill, room - before);
  return builder.Finish();
}

ValueOr Reverse(Runtime& runtime, const Text& text) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
  TextBuilder builder(runtime);
  for (size_t end = text.size(); end > 0 && builder.ok();) {
    const size_t begin = PreviousCharacter(text.bytes(), end);
    builder.Append(text, begin, end);
    end = begin;
  }
  return builder.Finish();
}

ValueOr EscapeHtml(Runtime& runtime, const Text& text) {
  return MapCharacters(runtime, text, [](int32_t code, size_t, std::string* out) {
    switch (code) {
      case '&':
        out->append("&amp;");
        break;
      case '<':
        out->append("&lt;");
        break;
      case '>':
        out->append("&gt;");
        break;
      case '"':
        out->append("&#34;");
        break;
      case '\'':
        out->append("&#39;");
        break;
      default:
        AppendUtf8(code, out);
    }
  });
}

ValueOr SplitLines(Runtime& runtime, const Text& text, bool keep_ends) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
  std::vector<Value> lines;
  const auto add = [&](size_t begin, size_t end) -> absl::Status {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value line, runtime.String(text.Slice(begin, end)));
    lines.push_back(std::move(line));
    return absl::OkStatus();
  };
  size_t begin = 0;
  for (size_t offset = 0; offset < text.size();) {
    const Character character = CharacterAt(text.bytes(), offset);
    size_t next = offset + character.size;
    if (IsLineBreak(character.code)) {
      if (character.code == '\r' && next < text.size() && text.bytes()[next] == '\n') ++next;
      SIROCCO_CHAT_RETURN_IF_ERROR(add(begin, keep_ends ? next : offset));
      begin = next;
    }
    offset = next;
  }
  if (begin < text.size()) {
    SIROCCO_CHAT_RETURN_IF_ERROR(add(begin, text.size()));
  }
  return runtime.List(std::move(lines));
}

absl::StatusOr<size_t> FindText(Meter& meter, std::string_view text, std::string_view part,
                                size_t begin, size_t end, bool last) {
  constexpr size_t kAbsent = std::string_view::npos;
  if (begin > end || part.size() > end - begin) return kAbsent;
  if (last) return FindLast(meter, text, part, begin, end);
  if (part.empty()) return begin;
  // memmem is linear, which std::string_view::find is not.
  const char* window = text.data() + begin;
  const void* found = memmem(window, end - begin, part.data(), part.size());
  const size_t offset = found == nullptr
                            ? kAbsent
                            : static_cast<size_t>(static_cast<const char*>(found) - text.data());
  const size_t scanned = (found == nullptr ? end : offset) - begin;
  constexpr size_t kShort = 16;
  SIROCCO_CHAT_RETURN_IF_ERROR(part.size() <= kShort ? meter.StepBytes(scanned)
                                                     : meter.StepCharacters(scanned));
  return offset;
}

std::string Shortened(std::string_view text) {
  constexpr size_t kMostCharacters = 80;
  const std::string_view beginning = text.substr(0, kMostCharacters * 4);
  const size_t size = CharacterOffset(beginning, kMostCharacters);
  // A character that the cut went through is none of the first ones.
  return size == text.size() ? std::string(text) : std::string(text.substr(0, size)) + "...";
}

}  // namespace sirocco::jinja
