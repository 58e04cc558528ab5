// Values as text: str() and repr() of Python.
#pragma once

#include <string>

#include "engine/chat/runtime.h"
#include "engine/chat/value.h"

namespace sirocco::jinja {

// str(): a string as it is, with its provenance; nothing for an undefined value.
absl::Status AppendStr(Runtime& runtime, const Value& value, TextBuilder* out);
absl::StatusOr<Text> StrText(Runtime& runtime, const Value& value);
ValueOr Str(Runtime& runtime, const Value& value);

// repr() is trusted only where everything in the value is.
ValueOr Repr(Runtime& runtime, const Value& value);

// repr(float): the shortest digits that give the number back.
std::string FloatRepr(double value);

}  // namespace sirocco::jinja
