// Tokens to a template's tree: the grammar of jinja2.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat/ast.h"

namespace sirocco::jinja {

// Tags, brackets, signs and the like nest at most this deep in a template.
inline constexpr int kMaxNesting = 100;

// INVALID_ARGUMENT with the line; UNIMPLEMENTED names a part of jinja2 that is left out.
absl::StatusOr<std::unique_ptr<const Template>> ParseTemplate(std::string_view source);

}  // namespace sirocco::jinja
