// The functions that every template finds as variables.
#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/chat/filters.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"

namespace sirocco::jinja {
namespace {

ValueOr RangeFunction(Runtime& runtime, const Value&, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t first, IntegerArgument(args[0], 0, "start"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t second, IntegerArgument(args[1], 0, "stop"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t step, IntegerArgument(args[2], 1, "step"));
  if (step == 0) return TemplateError("range() arg 3 must not be zero");
  const int64_t start = args[1] == nullptr ? 0 : first;
  const int64_t stop = args[1] == nullptr ? first : second;
  // In unsigned arithmetic, where the largest distance fits.
  const bool empty = step > 0 ? start >= stop : start <= stop;
  const uint64_t distance = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                     : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : ~static_cast<uint64_t>(step) + 1;
  const uint64_t length = empty ? 0 : (distance - 1) / stride + 1;
  if (length > static_cast<uint64_t>(kMaxRange)) {
    return TemplateError(absl::StrCat(
        "Range too big. The sandbox blocks ranges larger than MAX_RANGE (", kMaxRange, ")."));
  }
  const bool trusted = std::all_of(args.raw().positional.begin(), args.raw().positional.end(),
                                   [](const Value& value) { return value.trusted(); });
  return runtime.Range(start, stop, step, static_cast<int64_t>(length), trusted);
}

// dict(mapping or pairs, name=value, ...), for dict() and namespace() alike.
absl::StatusOr<std::shared_ptr<DictObject>> BuildDict(Runtime& runtime, const CallArgs& raw) {
  auto dict = std::make_shared<DictObject>();
  if (raw.positional.size() > 1) {
    return TemplateError(
        absl::StrCat("dict expected at most 1 argument, got ", raw.positional.size()));
  }
  if (!raw.positional.empty() && raw.positional[0].is_undefined()) {
    return UndefinedError(raw.positional[0]);
  }
  if (!raw.positional.empty() && raw.positional[0].is(Kind::kDict)) {
    for (const auto& [key, value] : raw.positional[0].dict().entries) dict->Set(key, value);
  } else if (!raw.positional.empty()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef pairs, Iterate(runtime, raw.positional[0]));
    for (const Value& pair : pairs->items) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef parts, Iterate(runtime, pair));
      if (parts->items.size() != 2 || !DictObject::CanBeKey(parts->items[0])) {
        return TemplateError("dict() takes a mapping or pairs of a key and a value");
      }
      dict->Set(parts->items[0], parts->items[1]);
    }
  }
  for (const auto& [name, value] : raw.named) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value key, runtime.String(name, true));
    dict->Set(std::move(key), value);
  }
  return dict;
}

ValueOr DictFunction(Runtime& runtime, const Value&, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(auto dict, BuildDict(runtime, args.raw()));
  return runtime.Dict(std::move(dict));
}

ValueOr NamespaceFunction(Runtime& runtime, const Value&, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const auto dict, BuildDict(runtime, args.raw()));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(NamespaceObject * name_space, runtime.NewNamespace());
  for (const auto& [key, value] : dict->entries) {
    if (!key.is_string()) return TemplateError("namespace() takes names that are strings");
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.SetAttribute(name_space, key.bytes(), value));
  }
  return Value::Pointer(Kind::kNamespace, name_space);
}

ValueOr RaiseException(Runtime& runtime, const Value&, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text message, StrText(runtime, *args[0]));
  return runtime.Raise(std::string(message.bytes()));
}

// One conversion of strftime. Empty where it is unknown.
std::string FormatTime(const std::tm& time, int64_t microseconds, std::string_view flag,
                       char conversion) {
  // A time without a zone, as datetime.now() is.
  if (conversion == 'z' || conversion == 'Z') return "";
  if (conversion == 'f') {
    const std::string digits = absl::StrCat(microseconds);
    return std::string(6 - std::min<size_t>(6, digits.size()), '0') + digits;
  }
  const std::string format = absl::StrCat("%", std::string(flag), std::string(1, conversion));
  std::array<char, 256> buffer;
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &time);
  return std::string(buffer.data(), size);
}

ValueOr StrftimeNow(Runtime& runtime, const Value&, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* format, TextArgument(args[0], "format"));
  const std::string_view text = format->bytes();
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
  const auto since_epoch = runtime.now().time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since_epoch);
  const int64_t microseconds =
      std::chrono::duration_cast<std::chrono::microseconds>(since_epoch - seconds).count();
  const std::time_t clock = seconds.count();
  std::tm time{};
  if (localtime_r(&clock, &time) == nullptr) return TemplateError("strftime_now: no local time");
  const bool trusted = format->trusted();
  TextBuilder builder(runtime);
  for (size_t i = 0; i < text.size() && builder.ok();) {
    const size_t percent = std::min(text.find('%', i), text.size());
    builder.Append(*format, i, percent);
    i = percent;
    if (i >= text.size()) break;
    // A flag of the C library's, then a conversion of one letter.
    const bool flagged = i + 2 < text.size() &&
                         std::string_view("-_0^#").find(text[i + 1]) != std::string_view::npos;
    const size_t at = i + (flagged ? 2 : 1);
    const bool known =
        at < text.size() &&
        std::string_view("aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%").find(text[at]) !=
            std::string_view::npos;
    if (known) {
      builder.Append(FormatTime(time, microseconds, text.substr(i + 1, flagged ? 1 : 0), text[at]),
                     trusted);
      i = at + 1;
    } else {
      builder.Append(*format, i, i + 1);
      ++i;
    }
  }
  return builder.Finish();
}

template <const char* kName>
ValueOr Unsupported(Runtime&, const Value&, const Args&) {
  return absl::UnimplementedError(absl::StrCat("the function ", kName, "() is not supported"));
}
constexpr char kCycler[] = "cycler";
constexpr char kJoiner[] = "joiner";
constexpr char kLipsum[] = "lipsum";

constexpr Function kGlobals[] = {
    {kCycler, Unsupported<kCycler>, {}, 0, true},
    {kJoiner, Unsupported<kJoiner>, {}, 0, true},
    {kLipsum, Unsupported<kLipsum>, {}, 0, true},
    {"dict", DictFunction, {}, 0, true},
    {"namespace", NamespaceFunction, {}, 0, true},
    {"raise_exception", RaiseException, {"message"}, 1},
    {"range", RangeFunction, {"start", "stop", "step"}, 1},
    {"strftime_now", StrftimeNow, {"format"}, 1},
};

}  // namespace

const Function* FindGlobal(std::string_view name) {
  const auto* found = std::find_if(std::begin(kGlobals), std::end(kGlobals),
                                   [&](const Function& global) { return global.name == name; });
  return found == std::end(kGlobals) ? nullptr : found;
}

}  // namespace sirocco::jinja
