// Filters that give text.
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/chat/filters.h"
#include "engine/chat/format.h"
#include "engine/chat/json_writer.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

template <CaseMapping kMapping>
ValueOr Case(Runtime& runtime, const Value& subject, const Args&) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value text, Str(runtime, subject));
  return MapCase(runtime, text.text(), kMapping);
}

ValueOr Trim(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value text, Str(runtime, subject));
  std::optional<std::string_view> characters;
  size_t candidates = 1;
  if (args[0] != nullptr && !args[0]->is_none()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* given, TextArgument(args[0], "chars"));
    characters = given->bytes();
    // Every stripped character is looked for among them.
    candidates = std::clamp<size_t>(given->size(), 1, 1u << 20);
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepBytes(candidates * 64));
  const auto [begin, end] = StripRange(text.bytes(), characters, true, true);
  SIROCCO_CHAT_RETURN_IF_ERROR(
      runtime.meter().StepCharacters((text.bytes().size() - (end - begin)) * candidates));
  return runtime.String(text.text().Slice(begin, end));
}

ValueOr StringFilter(Runtime& runtime, const Value& subject, const Args&) {
  return Str(runtime, subject);
}

ValueOr Escape(Runtime& runtime, const Value& subject, const Args&) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value text, Str(runtime, subject));
  return EscapeHtml(runtime, text.text());
}

ValueOr ReplaceFilter(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value text, Str(runtime, subject));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value old_text, Str(runtime, *args[0]));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value new_text, Str(runtime, *args[1]));
  const Value* count_argument = args[2] != nullptr && args[2]->is_none() ? nullptr : args[2];
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t count, IntegerArgument(count_argument, -1, "count"));
  return Replace(runtime, text.text(), old_text.text(), new_text.text(), count);
}

ValueOr Center(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value text, Str(runtime, subject));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(args[0], 80, "width"));
  return Pad(runtime, text.text(), width, '^', Text(" ", args[0] == nullptr || args[0]->trusted()));
}

ValueOr FormatFilter(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value text, Str(runtime, subject));
  const CallArgs& raw = args.raw();
  if (!raw.positional.empty() && !raw.named.empty()) {
    return TemplateError("can't handle positional and keyword arguments at the same time");
  }
  if (raw.named.empty()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value values, runtime.Tuple(raw.positional));
    return FormatPercent(runtime, text.text(), values);
  }
  auto dict = std::make_shared<DictObject>();
  for (const auto& [name, value] : raw.named) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value key, runtime.String(name, true));
    dict->Set(std::move(key), value);
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value values, runtime.Dict(std::move(dict)));
  return FormatPercent(runtime, text.text(), values);
}

ValueOr JoinFilter(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  Text separator;
  if (args[0] != nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(separator, StrText(runtime, *args[0]));
  }
  if (args[1] == nullptr || args[1]->is_none()) return Join(runtime, separator, items->items);
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, args[1]));
  std::vector<Value> attributes;
  for (const Value& item : items->items) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value attribute, path.Get(runtime, item));
    attributes.push_back(std::move(attribute));
  }
  return Join(runtime, separator, attributes);
}

// The text of an indent argument: spaces by number, or itself.
absl::StatusOr<Text> Indentation(Runtime& runtime, const Value* width, int64_t absent) {
  if (width != nullptr && width->is_string()) return width->text();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t spaces, IntegerArgument(width, absent, "width"));
  TextBuilder builder(runtime);
  builder.AppendRepeated(Text(" ", width == nullptr || width->trusted()), spaces);
  return builder.FinishText();
}

ValueOr Indent(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* text, TextArgument(&subject, "s"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text indentation, Indentation(runtime, args[0], 4));
  const bool first = args[1] != nullptr && IsTrue(*args[1]);
  const bool blank = args[2] != nullptr && IsTrue(*args[2]);
  // A final empty line counts as a line here.
  Text closed = *text;
  closed.Append("\n", true);
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value lines, SplitLines(runtime, closed, false));
  TextBuilder builder(runtime);
  for (size_t i = 0; i < lines.items().size() && builder.ok(); ++i) {
    const Text& line = lines.items()[i].text();
    if (i > 0) builder.Append("\n", true);
    const bool indents = i == 0 ? first : blank || !line.empty();
    if (indents) builder.Append(indentation);
    builder.Append(line);
  }
  return builder.Finish();
}

ValueOr Truncate(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* text, TextArgument(&subject, "s"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t length, IntegerArgument(args[0], 255, "length"));
  const bool kill_words = args[1] != nullptr && IsTrue(*args[1]);
  Text end("...", true);
  if (args[2] != nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* given, TextArgument(args[2], "end"));
    end = *given;
  }
  const Value* leeway_argument = args[3] != nullptr && args[3]->is_none() ? nullptr : args[3];
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t leeway,
                                IntegerArgument(leeway_argument, 5, "leeway"));
  const auto end_length = static_cast<int64_t>(CountCharacters(end.bytes()));
  if (length < end_length || leeway < 0) {
    return TemplateError("truncate() takes a length of at least the end's, and no leeway below 0");
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepBytes(text->size()));
  const auto characters = static_cast<int64_t>(CountCharacters(text->bytes()));
  if (characters <= length || characters - length <= leeway) return subject;
  size_t kept = CharacterOffset(text->bytes(), static_cast<size_t>(length - end_length));
  if (!kill_words) {
    const size_t space = text->bytes().substr(0, kept).rfind(' ');
    if (space != std::string_view::npos) kept = space;
  }
  TextBuilder builder(runtime);
  builder.Append(*text, 0, kept);
  builder.Append(end);
  return builder.Finish();
}

ValueOr WordCount(Runtime& runtime, const Value& subject, const Args&) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value text, Str(runtime, subject));
  const std::string_view bytes = text.bytes();
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(bytes.size()));
  int64_t words = 0;
  bool inside = false;
  for (size_t offset = 0; offset < bytes.size();) {
    const Character character = CharacterAt(bytes, offset);
    const bool word = IsAlpha(character.code) || IsNumeric(character.code) || character.code == '_';
    if (word && !inside) ++words;
    inside = word;
    offset += character.size;
  }
  return Value::Int(words);
}

absl::StatusOr<JsonOptions> JsonArguments(Runtime& runtime, const Args& args) {
  JsonOptions options;
  options.ensure_ascii = args[0] != nullptr && IsTrue(*args[0]);
  if (args[1] != nullptr && !args[1]->is_none()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text indent, Indentation(runtime, args[1], 0));
    options.indent = std::string(indent.bytes());
    options.item_separator.assign(1, ',');  // as "=", GCC 12 warns of memory that may overlap
  }
  if (args[2] != nullptr && !args[2]->is_none()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef pair, Iterate(runtime, *args[2]));
    const bool strings =
        pair->items.size() == 2 && pair->items[0].is_string() && pair->items[1].is_string();
    if (!strings) return TemplateError("tojson(): separators are a pair of strings");
    options.item_separator = std::string(pair->items[0].bytes());
    options.key_separator = std::string(pair->items[1].bytes());
  }
  options.sort_keys = args[3] != nullptr && IsTrue(*args[3]);
  return options;
}

ValueOr ToJsonFilter(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const JsonOptions options, JsonArguments(runtime, args));
  return ToJson(runtime, subject, options);
}

constexpr Function kFilters[] = {
    {"capitalize", Case<CaseMapping::kCapitalize>},
    {"center", Center, {"width"}},
    {"e", Escape},
    {"escape", Escape},
    {"forceescape", Escape},
    {"format", FormatFilter, {}, 0, true},
    {"indent", Indent, {"width", "first", "blank"}},
    {"join", JoinFilter, {"d", "attribute"}},
    {"lower", Case<CaseMapping::kLower>},
    {"replace", ReplaceFilter, {"old", "new", "count"}, 2},
    {"safe", StringFilter},
    {"string", StringFilter},
    {"title", Case<CaseMapping::kTitleFilter>},
    {"tojson", ToJsonFilter, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"trim", Trim, {"chars"}},
    {"truncate", Truncate, {"length", "killwords", "end", "leeway"}},
    {"upper", Case<CaseMapping::kUpper>},
    {"wordcount", WordCount},
};

}  // namespace

const Function* FindTextFilter(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                   [&](const Function& filter) { return filter.name == name; });
  return found == std::end(kFilters) ? nullptr : found;
}

}  // namespace sirocco::jinja
