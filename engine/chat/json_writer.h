// json.dumps() of Python.
#pragma once

#include <optional>
#include <string>

#include "engine/chat/runtime.h"
#include "engine/chat/value.h"

namespace sirocco::jinja {

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
