#include "engine/chat/operators.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

std::string Quoted(std::string_view text) { return absl::StrCat("'", std::string(text), "'"); }

bool ItemsEqual(Meter& meter, const std::vector<Value>& left, const std::vector<Value>& right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [&](const Value& a, const Value& b) { return Equal(meter, a, b); });
}

bool DictsEqual(Meter& meter, const DictObject& left, const DictObject& right) {
  if (left.entries.size() != right.entries.size()) return false;
  return std::all_of(left.entries.begin(), left.entries.end(), [&](const auto& entry) {
    const Value* other = right.Find(entry.first);
    return other != nullptr && Equal(meter, entry.second, *other);
  });
}

bool RangesEqual(const RangeObject& left, const RangeObject& right) {
  if (left.length != right.length) return false;
  return left.length == 0 ||
         (left.start == right.start && (left.length == 1 || left.step == right.step));
}

absl::StatusOr<bool> SequenceLess(Runtime& runtime, const std::vector<Value>& left,
                                  const std::vector<Value>& right) {
  const size_t common = std::min(left.size(), right.size());
  for (size_t i = 0; i < common; ++i) {
    if (!Equal(runtime.meter(), left[i], right[i])) return Less(runtime, left[i], right[i]);
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
  }
  return left.size() < right.size();
}

ValueOr ViewItem(Runtime& runtime, const DictObject::Entry& entry, DictViewObject::Part part) {
  switch (part) {
    case DictViewObject::Part::kKeys:
      return entry.first;
    case DictViewObject::Part::kValues:
      return entry.second;
    case DictViewObject::Part::kItems:
      return runtime.Tuple({entry.first, entry.second});
  }
  return Value();
}

absl::StatusOr<SequenceRef> Characters(Runtime& runtime, const Text& text) {
  std::vector<Value> items;
  for (size_t offset = 0; offset < text.size();) {
    const size_t end = offset + CharacterAt(text.bytes(), offset).size;
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value item, runtime.String(text.Slice(offset, end)));
    items.push_back(std::move(item));
    offset = end;
  }
  return runtime.Sequence(std::move(items));
}

// A slice resolved as Python's slice.indices does: `count` elements from `start`.
struct SliceRange {
  int64_t start = 0;
  int64_t end = 0;
  int64_t step = 1;
  int64_t count = 0;
};

absl::StatusOr<std::optional<int64_t>> SliceBound(const Value& bound) {
  if (bound.is_none()) return std::optional<int64_t>();
  if (bound.is_integral()) return std::optional<int64_t>(bound.integer());
  return TemplateError("slice indices must be integers or None");
}

absl::StatusOr<SliceRange> ResolveSlice(const Value& start_value, const Value& stop_value,
                                        const Value& step_value, int64_t length) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const auto start, SliceBound(start_value));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const auto stop, SliceBound(stop_value));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const auto step, SliceBound(step_value));
  if (step == 0) return TemplateError("slice step cannot be zero");
  SliceRange range;
  // Steps beyond the length do as the length does, and cannot overflow.
  range.step = std::clamp(step.value_or(1), -length - 1, length + 1);
  const bool backwards = step.value_or(1) < 0;
  const int64_t lowest = backwards ? -1 : 0;
  const int64_t highest = backwards ? length - 1 : length;
  const auto resolve = [&](std::optional<int64_t> bound, int64_t absent) {
    if (!bound.has_value()) return absent;
    const int64_t from_start = *bound < 0 ? *bound + length : *bound;
    return std::clamp(from_start, lowest, highest);
  };
  range.start = resolve(start, backwards ? highest : lowest);
  range.end = resolve(stop, backwards ? lowest : highest);
  const int64_t span = backwards ? range.start - range.end : range.end - range.start;
  const int64_t stride = backwards ? -range.step : range.step;
  range.count = span <= 0 ? 0 : (span + stride - 1) / stride;
  return range;
}

ValueOr SliceText(Runtime& runtime, const Text& text, const Value& start, const Value& stop,
                  const Value& step) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepBytes(text.size()));
  const auto length = static_cast<int64_t>(CountCharacters(text.bytes()));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SliceRange range, ResolveSlice(start, stop, step, length));
  if (range.count == 0) return runtime.String(Text());
  size_t offset = CharacterOffset(text.bytes(), static_cast<size_t>(range.start));
  if (range.step == 1) {
    const std::string_view rest = text.bytes().substr(offset);
    const size_t size = CharacterOffset(rest, static_cast<size_t>(range.count));
    return runtime.String(text.Slice(offset, offset + size));
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(text.size()));
  TextBuilder builder(runtime);
  for (int64_t i = 0; i < range.count && builder.ok(); ++i) {
    builder.Append(text, offset, offset + CharacterAt(text.bytes(), offset).size);
    if (i + 1 == range.count) break;
    for (int64_t move = 0; move < range.step; ++move) {
      offset += CharacterAt(text.bytes(), offset).size;
    }
    for (int64_t move = 0; move > range.step; --move) {
      offset = PreviousCharacter(text.bytes(), offset);
    }
  }
  return builder.Finish();
}

}  // namespace

bool IsTrue(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.integer() != 0;
    case Kind::kFloat:
      return value.real() != 0;
    case Kind::kString:
      return !value.bytes().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.items().empty();
    case Kind::kDict:
      return !value.dict().entries.empty();
    case Kind::kDictView:
      return !value.view().dict->entries.empty();
    case Kind::kRange:
      return value.range().length != 0;
    default:
      return true;
  }
}

absl::Status UndefinedError(const Value& value) { return TemplateError(value.undefined().message); }

bool Equal(Meter& meter, const Value& left, const Value& right) {
  if (!meter.TryStep()) return false;
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return left.integer() == right.integer();
    return left.real() == right.real();
  }
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kUndefined:
      return true;
    case Kind::kList:
    case Kind::kTuple:
      return ItemsEqual(meter, left.items(), right.items());
    case Kind::kDict:
      return DictsEqual(meter, left.dict(), right.dict());
    case Kind::kRange:
      return RangesEqual(left.range(), right.range());
    case Kind::kString:
      if (left.bytes().size() != right.bytes().size()) return false;
      return meter.TryStep(static_cast<int64_t>(left.bytes().size() >> 9)) &&
             left.bytes() == right.bytes();
    default:
      return left.SameAs(right);
  }
}

absl::StatusOr<bool> Less(Runtime& runtime, const Value& left, const Value& right) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return left.integer() < right.integer();
    return left.real() < right.real();
  }
  if (left.is_undefined()) return UndefinedError(left);
  if (right.is_undefined()) return UndefinedError(right);
  if (left.kind() == right.kind()) {
    if (left.is_string()) {
      SIROCCO_CHAT_RETURN_IF_ERROR(
          runtime.meter().StepBytes(std::min(left.bytes().size(), right.bytes().size())));
      return left.bytes() < right.bytes();  // the order of UTF-8 is that of the code points
    }
    if (left.is_sequence()) return SequenceLess(runtime, left.items(), right.items());
  }
  return TemplateError(absl::StrCat("'<' not supported between instances of ",
                                    Quoted(TypeName(left)), " and ", Quoted(TypeName(right))));
}

absl::StatusOr<bool> Compare(Runtime& runtime, Comparison op, const Value& left,
                             const Value& right) {
  switch (op) {
    case Comparison::kEqual:
      return Equal(runtime.meter(), left, right);
    case Comparison::kNotEqual:
      return !Equal(runtime.meter(), left, right);
    case Comparison::kLess:
      return Less(runtime, left, right);
    case Comparison::kGreater:
      return Less(runtime, right, left);
    case Comparison::kLessEqual:
    case Comparison::kGreaterEqual: {
      // Not the negation of the opposite: NaN is in no order.
      SIROCCO_CHAT_ASSIGN_OR_RETURN(const bool strict, op == Comparison::kLessEqual
                                                           ? Less(runtime, left, right)
                                                           : Less(runtime, right, left));
      return strict || Equal(runtime.meter(), left, right);
    }
    case Comparison::kIn:
      return Contains(runtime, right, left);
    case Comparison::kNotIn: {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(const bool contained, Contains(runtime, right, left));
      return !contained;
    }
  }
  return false;
}

absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (item.is_undefined()) return UndefinedError(item);
    if (!item.is_string()) {
      return TemplateError(absl::StrCat("'in <string>' requires string as left operand, not ",
                                        std::string(TypeName(item))));
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        const size_t found,
        FindText(runtime.meter(), container.bytes(), item.bytes(), 0, container.bytes().size()));
    return found != std::string_view::npos;
  }
  const bool keys =
      container.is(Kind::kDictView) && container.view().part == DictViewObject::Part::kKeys;
  if (container.is(Kind::kDict) || keys) {
    if (item.is(Kind::kList) || item.is(Kind::kDict)) {
      return TemplateError(absl::StrCat("unhashable type: ", Quoted(TypeName(item))));
    }
    const DictObject& dict = keys ? *container.view().dict : container.dict();
    return dict.Find(item) != nullptr;
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, container));
  for (const Value& candidate : items->items) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    if (Equal(runtime.meter(), candidate, item)) return true;
  }
  return false;
}

absl::StatusOr<int64_t> Length(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepBytes(value.bytes().size()));
      return static_cast<int64_t>(CountCharacters(value.bytes()));
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().entries.size());
    case Kind::kDictView:
      return static_cast<int64_t>(value.view().dict->entries.size());
    case Kind::kRange:
      return value.range().length;
    case Kind::kLoop:
      return value.loop().length;
    default:
      return TemplateError(
          absl::StrCat("object of type ", Quoted(TypeName(value)), " has no len()"));
  }
}

absl::StatusOr<SequenceRef> Iterate(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kUndefined:
      break;
    case Kind::kList:
    case Kind::kTuple:
      // Shares the ownership of the value that holds it.
      return SequenceRef(std::make_shared<Value>(value), &value.sequence());
    case Kind::kString:
      return Characters(runtime, value.text());
    case Kind::kDict:
      for (const auto& entry : value.dict().entries) items.push_back(entry.first);
      break;
    case Kind::kDictView:
      for (const auto& entry : value.view().dict->entries) {
        SIROCCO_CHAT_ASSIGN_OR_RETURN(Value item, ViewItem(runtime, entry, value.view().part));
        items.push_back(std::move(item));
      }
      break;
    case Kind::kRange: {
      const RangeObject& range = value.range();
      items.reserve(static_cast<size_t>(range.length));
      for (int64_t i = 0; i < range.length; ++i) {
        items.push_back(Value::Int(range.At(i), range.trusted));
      }
      break;
    }
    case Kind::kIterator: {
      const IteratorObject& iterator = value.iterator();
      const size_t first = std::exchange(iterator.next, iterator.items->items.size());
      if (first == 0) return iterator.items;
      items.assign(iterator.items->items.begin() + static_cast<std::ptrdiff_t>(first),
                   iterator.items->items.end());
      break;
    }
    default:
      return TemplateError(absl::StrCat(Quoted(TypeName(value)), " object is not iterable"));
  }
  return runtime.Sequence(std::move(items));
}

ValueOr Slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
              const Value& step) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_string()) return SliceText(runtime, value.text(), start, stop, step);
  if (!value.is_sequence() && !value.is(Kind::kRange)) {
    return TemplateError(absl::StrCat(Quoted(TypeName(value)), " object cannot be sliced"));
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, value));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SliceRange range, ResolveSlice(start, stop, step, length));
  if (value.is(Kind::kRange)) {
    const RangeObject& whole = value.range();
    // An element behind the last need not fit; it is printed and no more.
    const auto element = [&](int64_t index) {
      return static_cast<int64_t>(static_cast<uint64_t>(whole.start) +
                                  static_cast<uint64_t>(index) * static_cast<uint64_t>(whole.step));
    };
    const auto stride =
        static_cast<int64_t>(static_cast<uint64_t>(whole.step) * static_cast<uint64_t>(range.step));
    return runtime.Range(element(range.start), element(range.end), stride, range.count,
                         whole.trusted);
  }
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(range.count));
  for (int64_t i = 0; i < range.count; ++i) {
    items.push_back(value.items()[static_cast<size_t>(range.start + i * range.step)]);
  }
  return value.is(Kind::kList) ? runtime.List(std::move(items)) : runtime.Tuple(std::move(items));
}

}  // namespace sirocco::jinja
