// Methods of str.
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/chat/attributes.h"
#include "engine/chat/format.h"
#include "engine/chat/operators.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

bool IsAbsent(const Value* value) { return value == nullptr || value->is_none(); }

template <CaseMapping kMapping>
ValueOr Case(Runtime& runtime, const Value& self, const Args&) {
  return MapCase(runtime, self.text(), kMapping);
}

template <bool kLeft, bool kRight>
ValueOr Strip(Runtime& runtime, const Value& self, const Args& args) {
  std::optional<std::string_view> characters;
  if (!IsAbsent(args[0])) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* text, TextArgument(args[0], "chars"));
    characters = text->bytes();
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepBytes(text->size() * 64));
  }
  const auto [begin, end] = StripRange(self.bytes(), characters, kLeft, kRight);
  const size_t stripped = self.bytes().size() - (end - begin);
  const size_t candidates = characters.has_value() ? std::max<size_t>(1, characters->size()) : 1;
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(
      stripped > SIZE_MAX / candidates ? SIZE_MAX / 2 : stripped * candidates));
  return runtime.String(self.text().Slice(begin, end));
}

// Pieces of a split as they are found, first to last.
class Pieces {
 public:
  Pieces(Runtime& runtime, const Text& text) : runtime_(runtime), text_(text) {}
  absl::Status Add(size_t begin, size_t end) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().Step());
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value piece, runtime_.String(text_.Slice(begin, end)));
    pieces_.push_back(std::move(piece));
    return absl::OkStatus();
  }
  void Reverse() { std::reverse(pieces_.begin(), pieces_.end()); }
  ValueOr List() { return runtime_.List(std::move(pieces_)); }
  ValueOr Tuple() { return runtime_.Tuple(std::move(pieces_)); }

 private:
  Runtime& runtime_;
  const Text& text_;
  std::vector<Value> pieces_;
};

ValueOr SplitAtSpace(Runtime& runtime, const Text& text, int64_t limit) {
  Pieces pieces(runtime, text);
  const std::string_view bytes = text.bytes();
  size_t offset = StripRange(bytes, std::nullopt, true, false).first;
  while (offset < bytes.size()) {
    size_t end = offset;
    if (limit == 0) {
      end = bytes.size();  // what is left, as it is
    } else {
      while (end < bytes.size()) {
        const Character character = CharacterAt(bytes, end);
        if (IsSpace(character.code)) break;
        end += character.size;
      }
    }
    SIROCCO_CHAT_RETURN_IF_ERROR(pieces.Add(offset, end));
    if (limit == 0) break;
    if (limit > 0) --limit;
    offset = end + StripRange(bytes.substr(end), std::nullopt, true, false).first;
  }
  return pieces.List();
}

ValueOr SplitAtSpaceFromRight(Runtime& runtime, const Text& text, int64_t limit) {
  Pieces pieces(runtime, text);
  const std::string_view bytes = text.bytes();
  size_t end = StripRange(bytes, std::nullopt, false, true).second;
  while (end > 0) {
    size_t begin = end;
    if (limit == 0) {
      begin = 0;
    } else {
      while (begin > 0) {
        const size_t previous = PreviousCharacter(bytes, begin);
        if (IsSpace(CharacterAt(bytes, previous).code)) break;
        begin = previous;
      }
    }
    SIROCCO_CHAT_RETURN_IF_ERROR(pieces.Add(begin, end));
    if (limit == 0) break;
    if (limit > 0) --limit;
    end = StripRange(bytes.substr(0, begin), std::nullopt, false, true).second;
  }
  pieces.Reverse();
  return pieces.List();
}

template <bool kFromRight>
ValueOr Split(Runtime& runtime, const Value& self, const Args& args) {
  const Text& text = self.text();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(int64_t limit, IntegerArgument(args[1], -1, "maxsplit"));
  if (IsAbsent(args[0])) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
    return kFromRight ? SplitAtSpaceFromRight(runtime, text, limit)
                      : SplitAtSpace(runtime, text, limit);
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* separator, TextArgument(args[0], "sep"));
  if (separator->empty()) return TemplateError("empty separator");
  Pieces pieces(runtime, text);
  size_t begin = 0;
  size_t end = text.size();
  for (; limit != 0; limit -= limit > 0 ? 1 : 0) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        const size_t found,
        FindText(runtime.meter(), text.bytes(), separator->bytes(), begin, end, kFromRight));
    if (found == std::string_view::npos) break;
    const size_t behind = found + separator->size();
    SIROCCO_CHAT_RETURN_IF_ERROR(kFromRight ? pieces.Add(behind, end) : pieces.Add(begin, found));
    (kFromRight ? end : begin) = kFromRight ? found : behind;
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(pieces.Add(begin, end));
  if (kFromRight) pieces.Reverse();
  return pieces.List();
}

template <bool kFromRight>
ValueOr Partition(Runtime& runtime, const Value& self, const Args& args) {
  const Text& text = self.text();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* separator, TextArgument(args[0], "sep"));
  if (separator->empty()) return TemplateError("empty separator");
  SIROCCO_CHAT_ASSIGN_OR_RETURN(
      const size_t found,
      FindText(runtime.meter(), text.bytes(), separator->bytes(), 0, text.size(), kFromRight));
  // Not found: all of it at the near end, as Python has it.
  const bool there = found != std::string_view::npos;
  const size_t begin = there ? found : kFromRight ? 0 : text.size();
  const size_t end = there ? found + separator->size() : begin;
  Pieces pieces(runtime, text);
  SIROCCO_CHAT_RETURN_IF_ERROR(pieces.Add(0, begin));
  SIROCCO_CHAT_RETURN_IF_ERROR(pieces.Add(begin, end));
  SIROCCO_CHAT_RETURN_IF_ERROR(pieces.Add(end, text.size()));
  return pieces.Tuple();
}

ValueOr SplitLinesMethod(Runtime& runtime, const Value& self, const Args& args) {
  return SplitLines(runtime, self.text(), args[0] != nullptr && IsTrue(*args[0]));
}

ValueOr ReplaceMethod(Runtime& runtime, const Value& self, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* old_text, TextArgument(args[0], "old"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* new_text, TextArgument(args[1], "new"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t count, IntegerArgument(args[2], -1, "count"));
  return Replace(runtime, self.text(), *old_text, *new_text, count);
}

ValueOr JoinMethod(Runtime& runtime, const Value& self, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, *args[0]));
  for (const Value& item : items->items) {
    if (item.is_string()) continue;
    return TemplateError(
        absl::StrCat("join() takes strings, found '", std::string(TypeName(item)), "'"));
  }
  return Join(runtime, self.text(), items->items);
}

ValueOr FormatMethod(Runtime& runtime, const Value& self, const Args& args) {
  return FormatBraces(runtime, self.text(), args.raw());
}

// The window of the arguments `start` and `end`, in bytes; empty where start is behind the end.
struct Window {
  size_t begin = 0;
  size_t end = 0;
  bool valid = true;
};

absl::StatusOr<Window> SearchWindow(Runtime& runtime, std::string_view text, const Value* start,
                                    const Value* end) {
  Window window{0, text.size()};
  if (IsAbsent(start) && IsAbsent(end)) return window;
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepBytes(text.size()));
  const auto length = static_cast<int64_t>(CountCharacters(text));
  const auto resolve = [&](int64_t index) {
    return index < 0 ? std::max<int64_t>(0, index + length) : index;
  };
  SIROCCO_CHAT_ASSIGN_OR_RETURN(int64_t first,
                                IntegerArgument(IsAbsent(start) ? nullptr : start, 0, "start"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(int64_t last,
                                IntegerArgument(IsAbsent(end) ? nullptr : end, length, "end"));
  first = resolve(first);
  last = std::min(resolve(last), length);
  window.valid = first <= last;
  if (!window.valid) return window;
  window.begin = CharacterOffset(text, static_cast<size_t>(first));
  window.end = CharacterOffset(text, static_cast<size_t>(last));
  return window;
}

template <bool kLast, bool kMustBeThere>
ValueOr Find(Runtime& runtime, const Value& self, const Args& args) {
  const std::string_view text = self.bytes();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* part, TextArgument(args[0], "sub"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Window window, SearchWindow(runtime, text, args[1], args[2]));
  size_t found = std::string_view::npos;
  if (window.valid) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        found, FindText(runtime.meter(), text, part->bytes(), window.begin, window.end, kLast));
  }
  if (found == std::string_view::npos) {
    if (kMustBeThere) return TemplateError("substring not found");
    return Value::Int(-1);
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepBytes(found));
  return Value::Int(static_cast<int64_t>(CountCharacters(text.substr(0, found))));
}

ValueOr CountMethod(Runtime& runtime, const Value& self, const Args& args) {
  const std::string_view text = self.bytes();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* part, TextArgument(args[0], "sub"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Window window, SearchWindow(runtime, text, args[1], args[2]));
  if (!window.valid) return Value::Int(0);
  const std::string_view inside = text.substr(window.begin, window.end - window.begin);
  if (part->empty()) return Value::Int(static_cast<int64_t>(CountCharacters(inside)) + 1);
  int64_t count = 0;
  for (size_t from = 0;; ++count) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        const size_t found, FindText(runtime.meter(), inside, part->bytes(), from, inside.size()));
    if (found == std::string_view::npos) return Value::Int(count);
    from = found + part->size();
  }
}

bool Touches(std::string_view text, std::string_view part, bool end) {
  if (part.size() > text.size()) return false;
  return text.substr(end ? text.size() - part.size() : 0, part.size()) == part;
}

template <bool kEnd>
ValueOr StartsOrEnds(Runtime& runtime, const Value& self, const Args& args) {
  const std::string_view text = self.bytes();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Window window, SearchWindow(runtime, text, args[1], args[2]));
  const std::string_view inside = text.substr(window.begin, window.end - window.begin);
  if (!args[0]->is(Kind::kTuple)) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* part, TextArgument(args[0], "prefix"));
    return Value::Bool(window.valid && Touches(inside, part->bytes(), kEnd));
  }
  for (const Value& candidate : args[0]->items()) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* part, TextArgument(&candidate, "prefix"));
    if (window.valid && Touches(inside, part->bytes(), kEnd)) return Value::Bool(true);
  }
  return Value::Bool(false);
}

template <bool kEnd>
ValueOr RemoveAffix(Runtime& runtime, const Value& self, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* part, TextArgument(args[0], "affix"));
  if (!Touches(self.bytes(), part->bytes(), kEnd)) return self;
  const size_t size = self.bytes().size();
  return runtime.String(kEnd ? self.text().Slice(0, size - part->size())
                             : self.text().Slice(part->size(), size));
}

template <char kAlign>
ValueOr PadMethod(Runtime& runtime, const Value& self, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(args[0], 0, "width"));
  if (args[1] == nullptr) {
    return Pad(runtime, self.text(), width, kAlign, Text(" ", args[0]->trusted()));
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* fill, TextArgument(args[1], "fillchar"));
  if (CountCharacters(fill->bytes()) != 1) {
    return TemplateError("the fill character must be exactly one character long");
  }
  return Pad(runtime, self.text(), width, kAlign, *fill);
}

ValueOr ZeroFill(Runtime& runtime, const Value& self, const Args& args) {
  const Text& text = self.text();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(args[0], 0, "width"));
  const auto length = static_cast<int64_t>(CountCharacters(text.bytes()));
  const bool sign = !text.empty() && (text.bytes()[0] == '-' || text.bytes()[0] == '+');
  TextBuilder builder(runtime);
  builder.Append(text, 0, sign ? 1 : 0);
  builder.AppendRepeated(Text("0", args[0]->trusted()), width > length ? width - length : 0);
  builder.Append(text, sign ? 1 : 0, text.size());
  return builder.Finish();
}

ValueOr ExpandTabs(Runtime& runtime, const Value& self, const Args& args) {
  const Text& text = self.text();
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t size, IntegerArgument(args[0], 8, "tabsize"));
  TextBuilder builder(runtime);
  int64_t column = 0;
  for (size_t offset = 0; offset < text.size() && builder.ok();) {
    const Character character = CharacterAt(text.bytes(), offset);
    if (character.code == '\t') {
      const int64_t room = size > 0 ? size - column % size : 0;
      builder.AppendRepeated(Text(" ", text.TrustedAt(offset)), room);
      column += room;
    } else {
      builder.Append(text, offset, offset + character.size);
      column = character.code == '\n' || character.code == '\r' ? 0 : column + 1;
    }
    offset += character.size;
  }
  return builder.Finish();
}

// True where there are characters and the predicate holds for all of them.
template <bool (*kPredicate)(int32_t)>
ValueOr All(Runtime& runtime, const Value& self, const Args&) {
  const std::string_view text = self.bytes();
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
  for (size_t offset = 0; offset < text.size();) {
    const Character character = CharacterAt(text, offset);
    if (!kPredicate(character.code)) return Value::Bool(false);
    offset += character.size;
  }
  return Value::Bool(!text.empty());
}

bool IsAlphanumeric(int32_t code) { return IsAlpha(code) || IsNumeric(code); }
bool IsAsciiCode(int32_t code) { return code < 0x80; }

ValueOr IsAsciiMethod(Runtime& runtime, const Value& self, const Args& args) {
  if (self.bytes().empty()) return Value::Bool(true);
  return All<IsAsciiCode>(runtime, self, args);
}

ValueOr IsPrintableMethod(Runtime& runtime, const Value& self, const Args& args) {
  if (self.bytes().empty()) return Value::Bool(true);
  return All<IsPrintable>(runtime, self, args);
}

// Cased characters there are, and all of them are of the one case.
template <bool kUpperCase>
ValueOr IsCase(Runtime& runtime, const Value& self, const Args&) {
  const std::string_view text = self.bytes();
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
  bool cased = false;
  for (size_t offset = 0; offset < text.size();) {
    const Character character = CharacterAt(text, offset);
    if (IsCased(character.code)) {
      cased = true;
      const bool fits = kUpperCase ? IsUpper(character.code) : IsLower(character.code);
      if (!fits) return Value::Bool(false);
    }
    offset += character.size;
  }
  return Value::Bool(cased);
}

ValueOr IsIdentifier(Runtime& runtime, const Value& self, const Args& args) {
  const std::string_view text = self.bytes();
  if (text.empty() || !IsIdentifierStart(CharacterAt(text, 0).code)) return Value::Bool(false);
  return All<IsIdentifierPart>(runtime, self, args);
}

constexpr Method kMethods[] = {
    {{"capitalize", Case<CaseMapping::kCapitalize>}},
    {{"center", PadMethod<'^'>, {"width", "fillchar"}, 1}},
    {{"count", CountMethod, {"sub", "start", "end"}, 1}},
    {{"endswith", StartsOrEnds<true>, {"suffix", "start", "end"}, 1}},
    {{"expandtabs", ExpandTabs, {"tabsize"}}},
    {{"find", Find<false, false>, {"sub", "start", "end"}, 1}},
    {{"format", FormatMethod, {}, 0, true}},
    {{"index", Find<false, true>, {"sub", "start", "end"}, 1}},
    {{"isalnum", All<IsAlphanumeric>}},
    {{"isalpha", All<IsAlpha>}},
    {{"isascii", IsAsciiMethod}},
    {{"isdecimal", All<IsDecimal>}},
    {{"isdigit", All<IsDigit>}},
    {{"isidentifier", IsIdentifier}},
    {{"islower", IsCase<false>}},
    {{"isnumeric", All<IsNumeric>}},
    {{"isprintable", IsPrintableMethod}},
    {{"isspace", All<IsSpace>}},
    {{"isupper", IsCase<true>}},
    {{"join", JoinMethod, {"iterable"}, 1}},
    {{"ljust", PadMethod<'<'>, {"width", "fillchar"}, 1}},
    {{"lower", Case<CaseMapping::kLower>}},
    {{"lstrip", Strip<true, false>, {"chars"}}},
    {{"partition", Partition<false>, {"sep"}, 1}},
    {{"removeprefix", RemoveAffix<false>, {"prefix"}, 1}},
    {{"removesuffix", RemoveAffix<true>, {"suffix"}, 1}},
    {{"replace", ReplaceMethod, {"old", "new", "count"}, 2}},
    {{"rfind", Find<true, false>, {"sub", "start", "end"}, 1}},
    {{"rindex", Find<true, true>, {"sub", "start", "end"}, 1}},
    {{"rjust", PadMethod<'>'>, {"width", "fillchar"}, 1}},
    {{"rpartition", Partition<true>, {"sep"}, 1}},
    {{"rsplit", Split<true>, {"sep", "maxsplit"}}},
    {{"rstrip", Strip<false, true>, {"chars"}}},
    {{"split", Split<false>, {"sep", "maxsplit"}}},
    {{"splitlines", SplitLinesMethod, {"keepends"}}},
    {{"startswith", StartsOrEnds<false>, {"prefix", "start", "end"}, 1}},
    {{"strip", Strip<true, true>, {"chars"}}},
    {{"swapcase", Case<CaseMapping::kSwap>}},
    {{"title", Case<CaseMapping::kTitle>}},
    {{"upper", Case<CaseMapping::kUpper>}},
    {{"zfill", ZeroFill, {"width"}, 1}},
};

}  // namespace

const Method* FindStringMethod(std::string_view name) {
  const auto* found = std::find_if(std::begin(kMethods), std::end(kMethods),
                                   [&](const Method& method) { return method.name == name; });
  return found == std::end(kMethods) ? nullptr : found;
}

}  // namespace sirocco::jinja
