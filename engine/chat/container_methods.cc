// Methods of dict, list and tuple, and of a loop.
#include <algorithm>
#include <string_view>

#include "engine/chat/attributes.h"
#include "engine/chat/operators.h"
#include "engine/chat/status_macros.h"

namespace sirocco::jinja {
namespace {

ValueOr DictGet(Runtime&, const Value& self, const Args& args) {
  if (const Value* found = self.dict().Find(*args[0])) return *found;
  return args[1] == nullptr ? Value::None() : *args[1];
}

template <DictViewObject::Part kPart>
ValueOr DictPart(Runtime& runtime, const Value& self, const Args&) {
  return runtime.DictView(self, kPart);
}

// Values do not change, so a copy is the value itself.
ValueOr Copy(Runtime&, const Value& self, const Args&) { return self; }

ValueOr SequenceIndex(Runtime& runtime, const Value& self, const Args& args) {
  const std::vector<Value>& items = self.items();
  for (size_t i = 0; i < items.size(); ++i) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    if (Equal(runtime.meter(), items[i], *args[0])) return Value::Int(static_cast<int64_t>(i));
  }
  return TemplateError("index(): the value is not in the sequence");
}

ValueOr SequenceCount(Runtime& runtime, const Value& self, const Args& args) {
  int64_t count = 0;
  for (const Value& item : self.items()) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    if (Equal(runtime.meter(), item, *args[0])) ++count;
  }
  return Value::Int(count);
}

ValueOr LoopCycle(Runtime&, const Value& self, const Args& args) {
  const std::vector<Value>& values = args.raw().positional;
  if (values.empty()) return TemplateError("no items for cycling given");
  return values[static_cast<size_t>(self.loop().index0) % values.size()];
}

ValueOr LoopChanged(Runtime& runtime, const Value& self, const Args& args) {
  LoopObject& loop = self.loop();
  const std::vector<Value>& now = args.raw().positional;
  if (loop.last_changed != nullptr) {
    const std::vector<Value>& before = loop.last_changed->items;
    const bool same =
        std::equal(now.begin(), now.end(), before.begin(), before.end(),
                   [&](const Value& a, const Value& b) { return Equal(runtime.meter(), a, b); });
    if (same) return Value::Bool(false);
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(loop.last_changed, runtime.Sequence(now));
  return Value::Bool(true);
}

constexpr Method kDictMethods[] = {
    {{"copy", Copy}},
    {{"get", DictGet, {"key", "default"}, 1}},
    {{"items", DictPart<DictViewObject::Part::kItems>}},
    {{"keys", DictPart<DictViewObject::Part::kKeys>}},
    {{"values", DictPart<DictViewObject::Part::kValues>}},
};

constexpr Method kListMethods[] = {
    {{"copy", Copy}},
    {{"count", SequenceCount, {"value"}, 1}},
    {{"index", SequenceIndex, {"value"}, 1}},
};

constexpr Method kTupleMethods[] = {
    {{"count", SequenceCount, {"value"}, 1}},
    {{"index", SequenceIndex, {"value"}, 1}},
};

constexpr Method kLoopMethods[] = {
    {{"changed", LoopChanged, {}, 0, true}},
    {{"cycle", LoopCycle, {}, 0, true}},
};

template <size_t kCount>
const Method* FindIn(const Method (&methods)[kCount], std::string_view name) {
  const auto* found = std::find_if(std::begin(methods), std::end(methods),
                                   [&](const Method& method) { return method.name == name; });
  return found == std::end(methods) ? nullptr : found;
}

}  // namespace

const Method* FindContainerMethod(const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Kind::kDict:
      return FindIn(kDictMethods, name);
    case Kind::kList:
      return FindIn(kListMethods, name);
    case Kind::kTuple:
      return FindIn(kTupleMethods, name);
    case Kind::kLoop:
      return FindIn(kLoopMethods, name);
    default:
      return nullptr;
  }
}

}  // namespace sirocco::jinja
