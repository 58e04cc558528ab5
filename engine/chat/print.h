// Values as text: str(), repr() and json.dumps() of Python.
#pragma once

#include <optional>
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

struct JsonOptions {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
// json.dumps(). Trusted only where everything in the value is.
ValueOr ToJson(Runtime& runtime, const Value& value, const JsonOptions& options);

}  // namespace sirocco::jinja
