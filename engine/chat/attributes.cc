#include "engine/chat/attributes.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

constexpr std::string_view kDictMutators[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kListMutators[] = {"append", "clear",   "extend", "insert",
                                              "pop",    "reverse", "remove", "sort"};
// Python has them; they are refused by name, so that they are not taken for absent.
constexpr std::string_view kOtherStringMethods[] = {"encode", "format_map", "maketrans",
                                                    "translate"};

template <size_t kCount>
bool Holds(const std::string_view (&names)[kCount], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool IsMutator(const Value& value, std::string_view name) {
  return (value.is(Kind::kDict) && Holds(kDictMutators, name)) ||
         (value.is(Kind::kList) && Holds(kListMutators, name));
}

// "dict object", and None and undefined values by their names alone.
std::string Describe(const Value& value) {
  if (value.is_none()) return "None";
  if (value.is_undefined()) return "Undefined";
  return absl::StrCat(std::string(TypeName(value)), " object");
}

ValueOr UndefinedAttribute(Runtime& runtime, const Value& value, std::string_view name) {
  return runtime.Undefined(
      absl::StrCat("'", Describe(value), "' has no attribute '", Shortened(name), "'"));
}

ValueOr LoopItem(Runtime& runtime, const LoopObject& loop, int64_t index, const char* absent) {
  const bool there = loop.items != nullptr && index >= 0 && index < loop.length;
  return there ? ValueOr(loop.items->items[static_cast<size_t>(index)]) : runtime.Undefined(absent);
}

// The attributes of a loop that are no methods; nullopt for other names.
std::optional<ValueOr> LoopAttribute(Runtime& runtime, const LoopObject& loop,
                                     std::string_view name) {
  if (name == "index") return Value::Int(loop.index0 + 1);
  if (name == "index0") return Value::Int(loop.index0);
  if (name == "revindex") return Value::Int(loop.length - loop.index0);
  if (name == "revindex0") return Value::Int(loop.length - loop.index0 - 1);
  if (name == "first") return Value::Bool(loop.index0 == 0);
  if (name == "last") return Value::Bool(loop.index0 + 1 == loop.length);
  if (name == "length") return Value::Int(loop.length);
  // Loops are not recursive.
  if (name == "depth") return Value::Int(1);
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem") {
    return LoopItem(runtime, loop, loop.index0 - 1, "there is no previous item");
  }
  if (name == "nextitem") {
    return LoopItem(runtime, loop, loop.index0 + 1, "there is no next item");
  }
  return std::nullopt;
}

// A Python attribute: nullopt where the type has none of that name.
std::optional<ValueOr> OwnAttribute(Runtime& runtime, const Value& value, std::string_view name) {
  const bool internal =
      name.size() > 4 && name.substr(0, 2) == "__" && name.substr(name.size() - 2) == "__";
  if (internal || IsMutator(value, name)) {
    return runtime.Undefined(absl::StrCat("access to attribute '", std::string(name), "' of '",
                                          std::string(TypeName(value)), "' object is unsafe."));
  }
  if (value.is(Kind::kLoop)) {
    if (auto attribute = LoopAttribute(runtime, value.loop(), name)) return attribute;
  }
  if (value.is(Kind::kNamespace)) {
    const auto found = value.name_space().attributes.find(std::string(name));
    if (found == value.name_space().attributes.end()) return std::nullopt;
    return found->second;
  }
  if (value.is_string() && Holds(kOtherStringMethods, name)) {
    return absl::UnimplementedError(
        absl::StrCat("the string method ", std::string(name), " is not supported"));
  }
  if (const Method* method = FindMethod(value, name)) return runtime.BoundMethod(value, *method);
  return std::nullopt;
}

// value[index] of what has positions; nullopt where there is none.
absl::StatusOr<std::optional<Value>> ElementAt(Runtime& runtime, const Value& value,
                                               int64_t index) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, value));
  if (index < 0) index += length;
  if (index < 0 || index >= length) return std::optional<Value>();
  if (value.is(Kind::kRange)) {
    return std::optional<Value>(Value::Int(value.range().At(index), value.range().trusted));
  }
  if (value.is_sequence()) return std::optional<Value>(value.items()[static_cast<size_t>(index)]);
  const Text& text = value.text();
  const size_t begin = CharacterOffset(text.bytes(), static_cast<size_t>(index));
  const size_t size = CharacterAt(text.bytes(), begin).size;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Value character, runtime.String(text.Slice(begin, begin + size)));
  return std::optional<Value>(std::move(character));
}

// What value[key] finds without looking at attributes.
absl::StatusOr<std::optional<Value>> OwnElement(Runtime& runtime, const Value& value,
                                                const Value& key) {
  if (value.is(Kind::kDict)) {
    const Value* found = value.dict().Find(key);
    return found == nullptr ? std::optional<Value>() : std::optional<Value>(*found);
  }
  const bool indexed = value.is_string() || value.is_sequence() || value.is(Kind::kRange);
  if (indexed && key.is_integral()) return ElementAt(runtime, value, key.integer());
  return std::optional<Value>();
}

}  // namespace

const Method* FindMethod(const Value& value, std::string_view name) {
  return value.is_string() ? FindStringMethod(name) : FindContainerMethod(value, name);
}

ValueOr UndefinedElement(Runtime& runtime, const Value& value, const Value& key) {
  if (key.is_string()) return UndefinedAttribute(runtime, value, key.bytes());
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value shown, Repr(runtime, key));
  return runtime.Undefined(
      absl::StrCat(Describe(value), " has no element ", Shortened(shown.bytes())));
}

ValueOr GetAttribute(Runtime& runtime, const Value& value, std::string_view name) {
  if (value.is_undefined()) return UndefinedError(value);
  if (auto attribute = OwnAttribute(runtime, value, name)) return *std::move(attribute);
  if (value.is(Kind::kDict)) {
    if (const Value* found = value.dict().Find(name)) return *found;
  }
  return UndefinedAttribute(runtime, value, name);
}

ValueOr GetItem(Runtime& runtime, const Value& value, const Value& key) {
  if (value.is_undefined()) return UndefinedError(value);
  SIROCCO_CHAT_ASSIGN_OR_RETURN(std::optional<Value> element, OwnElement(runtime, value, key));
  if (element.has_value()) return *std::move(element);
  if (key.is_string()) {
    if (auto attribute = OwnAttribute(runtime, value, key.bytes())) return *std::move(attribute);
  }
  return UndefinedElement(runtime, value, key);
}

}  // namespace sirocco::jinja
