// JSON of a request as values of the template language.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/chat/runtime.h"

namespace sirocco::jinja {

// Untrusted, keys included; their order is kept. `where` names the value in errors: strings that
// are not UTF-8, integers beyond 64 bits.
ValueOr FromJson(Runtime& runtime, const nlohmann::ordered_json& json, const std::string& where);

}  // namespace sirocco::jinja
