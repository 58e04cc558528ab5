// What the interpreter's two files share.
#pragma once

#include "engine/chat/interpreter.h"

namespace sirocco::jinja {

// Evaluations in one another, for each level of max_depth: a macro's body takes some.
inline constexpr int64_t kLevelsPerDepth = 5;

class Interpreter::Level {
 public:
  explicit Level(Interpreter* interpreter) : interpreter_(*interpreter) { ++interpreter_.level_; }
  ~Level() { --interpreter_.level_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;
  // Also takes a step.
  absl::Status Check() const {
    Meter& meter = interpreter_.runtime_.meter();
    if (interpreter_.level_ > kLevelsPerDepth * meter.max_depth()) return meter.DepthExhausted();
    return meter.Step();
  }

 private:
  Interpreter& interpreter_;
};

}  // namespace sirocco::jinja
