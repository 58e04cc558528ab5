// The arithmetic operators of operators.h.
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/chat/format.h"
#include "engine/chat/operators.h"
#include "engine/chat/status_macros.h"

namespace sirocco::jinja {
namespace {

absl::Status Overflow() { return TemplateError("an integer result does not fit into 64 bits"); }

absl::Status DivisionByZero() { return TemplateError("division by zero"); }

const char* Symbol(BinaryOperator op) {
  switch (op) {
    case BinaryOperator::kAdd:
      return "+";
    case BinaryOperator::kSubtract:
      return "-";
    case BinaryOperator::kMultiply:
      return "*";
    case BinaryOperator::kDivide:
      return "/";
    case BinaryOperator::kFloorDivide:
      return "//";
    case BinaryOperator::kModulo:
      return "%";
    case BinaryOperator::kPower:
      return "**";
  }
  return "?";
}

absl::Status Unsupported(BinaryOperator op, const Value& left, const Value& right) {
  if (op == BinaryOperator::kAdd && left.is_string()) {
    return TemplateError(absl::StrCat("can only concatenate str (not \"",
                                      std::string(TypeName(right)), "\") to str"));
  }
  return TemplateError(absl::StrCat("unsupported operand type(s) for ", Symbol(op), ": '",
                                    std::string(TypeName(left)), "' and '",
                                    std::string(TypeName(right)), "'"));
}

// Python's remainder has the sign of the divisor.
int64_t FloorModulo(int64_t left, int64_t right) {
  if (right == -1) return 0;
  const int64_t remainder = left % right;
  return remainder != 0 && (remainder < 0) != (right < 0) ? remainder + right : remainder;
}

double FloorModulo(double left, double right) {
  const double remainder = std::fmod(left, right);
  if (remainder == 0) return std::copysign(0.0, right);
  return (remainder < 0) != (right < 0) ? remainder + right : remainder;
}

double FloorDivide(double left, double right) {
  const double quotient = (left - FloorModulo(left, right)) / right;
  if (quotient == 0) return std::copysign(0.0, left / right);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

ValueOr IntegerPower(int64_t base, int64_t exponent, bool trusted) {
  if (exponent < 0) {
    if (base == 0) return TemplateError("0.0 cannot be raised to a negative power");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)),
                        trusted);
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value::Int(result, trusted);
}

ValueOr Integers(BinaryOperator op, int64_t left, int64_t right, bool trusted) {
  int64_t result = 0;
  switch (op) {
    case BinaryOperator::kAdd:
      if (__builtin_add_overflow(left, right, &result)) return Overflow();
      break;
    case BinaryOperator::kSubtract:
      if (__builtin_sub_overflow(left, right, &result)) return Overflow();
      break;
    case BinaryOperator::kMultiply:
      if (__builtin_mul_overflow(left, right, &result)) return Overflow();
      break;
    case BinaryOperator::kDivide:
      if (right == 0) return DivisionByZero();
      return Value::Float(static_cast<double>(left) / static_cast<double>(right), trusted);
    case BinaryOperator::kFloorDivide:
      if (right == 0) return TemplateError("integer division or modulo by zero");
      if (left == INT64_MIN && right == -1) return Overflow();
      result = left / right - (left % right != 0 && (left < 0) != (right < 0) ? 1 : 0);
      break;
    case BinaryOperator::kModulo:
      if (right == 0) return TemplateError("integer division or modulo by zero");
      result = FloorModulo(left, right);
      break;
    case BinaryOperator::kPower:
      return IntegerPower(left, right, trusted);
  }
  return Value::Int(result, trusted);
}

ValueOr RealPower(double left, double right, bool trusted) {
  if (left == 0 && right < 0) return TemplateError("0.0 cannot be raised to a negative power");
  const double result = std::pow(left, right);
  if (std::isnan(result) && !std::isnan(left) && !std::isnan(right)) {
    return TemplateError("a power of a negative number would be complex");
  }
  if (std::isinf(result) && !std::isinf(left) && !std::isinf(right)) {
    return TemplateError("a floating point result is out of range");
  }
  return Value::Float(result, trusted);
}

ValueOr Reals(BinaryOperator op, double left, double right, bool trusted) {
  const bool divides = op == BinaryOperator::kDivide || op == BinaryOperator::kFloorDivide ||
                       op == BinaryOperator::kModulo;
  if (divides && right == 0) return DivisionByZero();
  switch (op) {
    case BinaryOperator::kAdd:
      return Value::Float(left + right, trusted);
    case BinaryOperator::kSubtract:
      return Value::Float(left - right, trusted);
    case BinaryOperator::kMultiply:
      return Value::Float(left * right, trusted);
    case BinaryOperator::kDivide:
      return Value::Float(left / right, trusted);
    case BinaryOperator::kFloorDivide:
      return Value::Float(FloorDivide(left, right), trusted);
    case BinaryOperator::kModulo:
      return Value::Float(FloorModulo(left, right), trusted);
    case BinaryOperator::kPower:
      return RealPower(left, right, trusted);
  }
  return Value();
}

ValueOr Concatenate(Runtime& runtime, const Value& left, const Value& right) {
  if (left.is_string()) {
    TextBuilder builder(runtime);
    builder.Append(left.text());
    builder.Append(right.text());
    return builder.Finish();
  }
  // Paid for before the copy is made.
  const size_t count = left.items().size() + right.items().size();
  if (count > runtime.meter().memory_left() / sizeof(Value)) {
    return runtime.meter().MemoryExhausted();
  }
  std::vector<Value> items;
  items.reserve(count);
  items.insert(items.end(), left.items().begin(), left.items().end());
  items.insert(items.end(), right.items().begin(), right.items().end());
  return left.is(Kind::kList) ? runtime.List(std::move(items)) : runtime.Tuple(std::move(items));
}

ValueOr Repeat(Runtime& runtime, const Value& value, int64_t times) {
  if (value.is_string()) {
    TextBuilder builder(runtime);
    builder.AppendRepeated(value.text(), times);
    return builder.Finish();
  }
  const std::vector<Value>& source = value.items();
  std::vector<Value> items;
  if (times > 0 && !source.empty()) {
    if (static_cast<uint64_t>(times) >
        runtime.meter().memory_left() / sizeof(Value) / source.size()) {
      return runtime.meter().MemoryExhausted();
    }
    items.reserve(source.size() * static_cast<size_t>(times));
    for (int64_t i = 0; i < times; ++i) items.insert(items.end(), source.begin(), source.end());
  }
  return value.is(Kind::kList) ? runtime.List(std::move(items)) : runtime.Tuple(std::move(items));
}

bool IsRepeatable(const Value& value) { return value.is_string() || value.is_sequence(); }

}  // namespace

ValueOr Binary(Runtime& runtime, BinaryOperator op, const Value& left, const Value& right) {
  if (op == BinaryOperator::kModulo && left.is_string()) {
    return FormatPercent(runtime, left.text(), right);
  }
  if (left.is_undefined()) return UndefinedError(left);
  if (right.is_undefined()) return UndefinedError(right);
  if (left.is_number() && right.is_number()) {
    const bool trusted = left.trusted() && right.trusted();
    if (left.is_integral() && right.is_integral()) {
      return Integers(op, left.integer(), right.integer(), trusted);
    }
    return Reals(op, left.real(), right.real(), trusted);
  }
  if (op == BinaryOperator::kAdd && left.kind() == right.kind() && IsRepeatable(left)) {
    return Concatenate(runtime, left, right);
  }
  if (op == BinaryOperator::kMultiply) {
    if (IsRepeatable(left) && right.is_integral()) return Repeat(runtime, left, right.integer());
    if (IsRepeatable(right) && left.is_integral()) return Repeat(runtime, right, left.integer());
  }
  return Unsupported(op, left, right);
}

ValueOr Negate(const Value& value) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is(Kind::kFloat)) return Value::Float(-value.real(), value.trusted());
  if (!value.is_integral()) {
    return TemplateError(
        absl::StrCat("bad operand type for unary -: '", std::string(TypeName(value)), "'"));
  }
  if (value.integer() == INT64_MIN) return Overflow();
  return Value::Int(-value.integer(), value.trusted());
}

ValueOr Plus(const Value& value) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is(Kind::kFloat)) return value;
  if (value.is_integral()) return Value::Int(value.integer(), value.trusted());
  return TemplateError(
      absl::StrCat("bad operand type for unary +: '", std::string(TypeName(value)), "'"));
}

}  // namespace sirocco::jinja
