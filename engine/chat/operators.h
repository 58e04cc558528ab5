// Python's operators on values.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "engine/chat/runtime.h"
#include "engine/chat/value.h"

namespace sirocco::jinja {

enum class BinaryOperator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower
};
enum class Comparison : uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

bool IsTrue(const Value& value);

// An operation on an undefined value: what it says about itself.
absl::Status UndefinedError(const Value& value);

ValueOr Binary(Runtime& runtime, BinaryOperator op, const Value& left, const Value& right);
// Integers are 64 bits wide; beyond is an error.
ValueOr Negate(const Value& value);
ValueOr Plus(const Value& value);

// Once the steps are used up it answers false, and the next Step() fails.
bool Equal(Meter& meter, const Value& left, const Value& right);
absl::StatusOr<bool> Less(Runtime& runtime, const Value& left, const Value& right);
absl::StatusOr<bool> Compare(Runtime& runtime, Comparison op, const Value& left,
                             const Value& right);
absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

// len(). An error where Python has none.
absl::StatusOr<int64_t> Length(Runtime& runtime, const Value& value);
// What iterating gives, once and for all; lists and tuples are not copied. An iterator is used up.
absl::StatusOr<SequenceRef> Iterate(Runtime& runtime, const Value& value);

// value[start:stop:step]; absent bounds are None.
ValueOr Slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
              const Value& step);

}  // namespace sirocco::jinja
