// Passing errors up in the template engine.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define SIROCCO_CHAT_CONCAT_INNER(a, b) a##b
#define SIROCCO_CHAT_CONCAT(a, b) SIROCCO_CHAT_CONCAT_INNER(a, b)

#define SIROCCO_CHAT_RETURN_IF_ERROR(expression) \
  do {                                           \
    absl::Status chat_status = (expression);     \
    if (!chat_status.ok()) [[unlikely]]          \
      return chat_status;                        \
  } while (false)

#define SIROCCO_CHAT_ASSIGN_OR_RETURN_INNER(result, target, expression) \
  auto result = (expression);                                           \
  if (!result.ok()) [[unlikely]]                                        \
    return result.status();                                             \
  target = *std::move(result)

// SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value value, Evaluate(...));
#define SIROCCO_CHAT_ASSIGN_OR_RETURN(target, ...)                                         \
  SIROCCO_CHAT_ASSIGN_OR_RETURN_INNER(SIROCCO_CHAT_CONCAT(chat_result_, __LINE__), target, \
                                      (__VA_ARGS__))
