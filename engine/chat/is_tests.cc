// The tests: what may stand behind `is`.
#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/chat/attributes.h"
#include "engine/chat/filters.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"

namespace sirocco::jinja {
namespace {

template <Kind... kKinds>
ValueOr IsKind(Runtime&, const Value& subject, const Args&) {
  return Value::Bool((subject.is(kKinds) || ...));
}

ValueOr IsDefined(Runtime&, const Value& subject, const Args&) {
  return Value::Bool(!subject.is_undefined());
}

template <bool kWanted>
ValueOr IsBoolean(Runtime&, const Value& subject, const Args&) {
  return Value::Bool(subject.is(Kind::kBool) && subject.boolean() == kWanted);
}

ValueOr IsSequence(Runtime&, const Value& subject, const Args&) {
  return Value::Bool(subject.is_string() || subject.is_sequence() || subject.is(Kind::kDict) ||
                     subject.is(Kind::kRange) || subject.is_undefined());
}

ValueOr IsIterable(Runtime&, const Value& subject, const Args&) {
  return Value::Bool(subject.is_string() || subject.is_sequence() || subject.is(Kind::kDict) ||
                     subject.is(Kind::kDictView) || subject.is(Kind::kRange) ||
                     subject.is(Kind::kIterator) || subject.is_undefined());
}

ValueOr IsCallable(Runtime&, const Value& subject, const Args&) {
  return Value::Bool(subject.is(Kind::kMethod) || subject.is(Kind::kMacro) ||
                     subject.is(Kind::kFunction) || subject.is_undefined());
}

template <Comparison kComparison>
ValueOr Compares(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const bool holds, Compare(runtime, kComparison, subject, *args[0]));
  return Value::Bool(holds);
}

ValueOr IsSameAs(Runtime&, const Value& subject, const Args& args) {
  return Value::Bool(subject.SameAs(*args[0]));
}

ValueOr RemainderIs(Runtime& runtime, const Value& subject, const Value& divisor,
                    int64_t remainder) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value rest,
                                Binary(runtime, BinaryOperator::kModulo, subject, divisor));
  return Value::Bool(Equal(runtime.meter(), rest, Value::Int(remainder)));
}

template <int64_t kRemainder>
ValueOr IsParity(Runtime& runtime, const Value& subject, const Args&) {
  return RemainderIs(runtime, subject, Value::Int(2), kRemainder);
}

ValueOr IsDivisibleBy(Runtime& runtime, const Value& subject, const Args& args) {
  return RemainderIs(runtime, subject, *args[0], 0);
}

// islower() and isupper() of the value's text.
template <const char* kMethod>
ValueOr IsCase(Runtime& runtime, const Value& subject, const Args&) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value text, Str(runtime, subject));
  return CallFunction(runtime, *FindStringMethod(kMethod), text, CallArgs());
}
constexpr char kIsLower[] = "islower";
constexpr char kIsUpper[] = "isupper";

ValueOr IsFilterName(Runtime&, const Value& subject, const Args&) {
  return Value::Bool(subject.is_string() && IsFilter(subject.bytes()));
}

ValueOr IsTestName(Runtime&, const Value& subject, const Args&) {
  return Value::Bool(subject.is_string() && IsTest(subject.bytes()));
}

// Text is never marked as safe HTML here.
ValueOr IsEscaped(Runtime&, const Value&, const Args&) { return Value::Bool(false); }

constexpr Function kTests[] = {
    {"!=", Compares<Comparison::kNotEqual>, {"other"}, 1},
    {"<", Compares<Comparison::kLess>, {"other"}, 1},
    {"<=", Compares<Comparison::kLessEqual>, {"other"}, 1},
    {"==", Compares<Comparison::kEqual>, {"other"}, 1},
    {">", Compares<Comparison::kGreater>, {"other"}, 1},
    {">=", Compares<Comparison::kGreaterEqual>, {"other"}, 1},
    {"boolean", IsKind<Kind::kBool>},
    {"callable", IsCallable},
    {"defined", IsDefined},
    {"divisibleby", IsDivisibleBy, {"num"}, 1},
    {"eq", Compares<Comparison::kEqual>, {"other"}, 1},
    {"equalto", Compares<Comparison::kEqual>, {"other"}, 1},
    {"escaped", IsEscaped},
    {"even", IsParity<0>},
    {"false", IsBoolean<false>},
    {"filter", IsFilterName},
    {"float", IsKind<Kind::kFloat>},
    {"ge", Compares<Comparison::kGreaterEqual>, {"other"}, 1},
    {"greaterthan", Compares<Comparison::kGreater>, {"other"}, 1},
    {"gt", Compares<Comparison::kGreater>, {"other"}, 1},
    {"in", Compares<Comparison::kIn>, {"seq"}, 1},
    {"integer", IsKind<Kind::kInt>},
    {"iterable", IsIterable},
    {"le", Compares<Comparison::kLessEqual>, {"other"}, 1},
    {"lessthan", Compares<Comparison::kLess>, {"other"}, 1},
    {"lower", IsCase<kIsLower>},
    {"lt", Compares<Comparison::kLess>, {"other"}, 1},
    {"mapping", IsKind<Kind::kDict>},
    {"ne", Compares<Comparison::kNotEqual>, {"other"}, 1},
    {"none", IsKind<Kind::kNone>},
    {"number", IsKind<Kind::kInt, Kind::kFloat, Kind::kBool>},
    {"odd", IsParity<1>},
    {"sameas", IsSameAs, {"other"}, 1},
    {"sequence", IsSequence},
    {"string", IsKind<Kind::kString>},
    {"test", IsTestName},
    {"true", IsBoolean<true>},
    {"undefined", IsKind<Kind::kUndefined>},
    {"upper", IsCase<kIsUpper>},
};

const Function* Find(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTests), std::end(kTests),
                                   [&](const Function& test) { return test.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace

absl::StatusOr<const Function*> FindTest(std::string_view name) {
  if (const Function* found = Find(name)) return found;
  return TemplateError(absl::StrCat("No test named '", Shortened(name), "'."));
}

bool IsTest(std::string_view name) { return Find(name) != nullptr; }

}  // namespace sirocco::jinja
