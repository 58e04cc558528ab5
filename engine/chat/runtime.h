// One rendering: makes values within the limits, and holds what is shared while it lasts.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/chat/meter.h"
#include "engine/chat/value.h"

namespace sirocco::jinja {

// A range is refused beyond this, as jinja2's sandbox does.
inline constexpr int64_t kMaxRange = 100'000;

using ValueOr = absl::StatusOr<Value>;
using SequenceRef = std::shared_ptr<const SequenceObject>;

struct NamespaceObject {
  absl::flat_hash_map<std::string, Value> attributes;
};

struct LoopObject {
  SequenceRef items;  // dropped when the loop has ended
  int64_t length = 0;
  int64_t index0 = 0;
  SequenceRef last_changed;  // the arguments of changed(), null before its first call
};

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

inline constexpr size_t kMaxParameters = 5;

// The arguments of a call by parameter, bound as Python does; and as they came.
class Args {
 public:
  explicit Args(const CallArgs& raw) : raw_(raw) {}
  // nullptr where not given.
  const Value* operator[](size_t parameter) const { return bound_[parameter]; }
  const CallArgs& raw() const { return raw_; }

 private:
  friend absl::StatusOr<Args> BindArgs(const struct Function& function, const CallArgs& raw);
  const CallArgs& raw_;
  std::array<const Value*, kMaxParameters> bound_{};
};

class Runtime;

// A filter, test, method or global function. `subject` is the filtered or tested value or the
// method's object; None for a global.
struct Function {
  std::string_view name;
  ValueOr (*call)(Runtime& runtime, const Value& subject, const Args& args);
  std::array<std::string_view, kMaxParameters> parameters{};
  size_t required = 0;    // the first ones
  bool variadic = false;  // takes anything: reads Args::raw()
};
// A method of a type, found by the object's kind.
struct Method : Function {};

absl::StatusOr<Args> BindArgs(const Function& function, const CallArgs& raw);
ValueOr CallFunction(Runtime& runtime, const Function& function, const Value& subject,
                     const CallArgs& raw);

class Runtime {
 public:
  Runtime(Meter* meter, std::chrono::system_clock::time_point now) : meter_(*meter), now_(now) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  Meter& meter() { return meter_; }
  std::chrono::system_clock::time_point now() const { return now_; }

  ValueOr String(Text text);
  ValueOr String(std::string_view bytes, bool trusted) {
    return String(Text(std::string(bytes), trusted));
  }
  absl::StatusOr<SequenceRef> Sequence(std::vector<Value> items);
  ValueOr List(std::vector<Value> items);
  ValueOr Tuple(std::vector<Value> items);
  ValueOr Iterator(std::vector<Value> items);
  ValueOr Dict(std::shared_ptr<DictObject> dict);
  ValueOr DictView(const Value& dict, DictViewObject::Part part);
  // `stop` is only printed; all elements must fit into 64 bits.
  ValueOr Range(int64_t start, int64_t stop, int64_t step, int64_t length, bool trusted);
  ValueOr BoundMethod(const Value& self, const Method& method);
  ValueOr Undefined(std::string message);
  absl::StatusOr<NamespaceObject*> NewNamespace();
  absl::Status SetAttribute(NamespaceObject* name_space, std::string_view name, Value value);
  absl::StatusOr<LoopObject*> NewLoop(SequenceRef items);

  // raise_exception: the message stays as the template wrote it.
  absl::Status Raise(std::string message);
  bool raised() const { return raised_; }

 private:
  template <typename T>
  absl::Status Hold(T* object, size_t more_bytes);
  absl::Status CheckDepth(int32_t depth);

  Meter& meter_;
  const std::chrono::system_clock::time_point now_;
  bool raised_ = false;
  // Alive to the end, so that values may point to them; every one is paid for.
  std::deque<NamespaceObject> namespaces_;
  std::deque<LoopObject> loops_;
};

// Builds a text within the memory limit. Past the limit further appends do nothing; Finish tells.
class TextBuilder {
 public:
  explicit TextBuilder(Runtime& runtime) : runtime_(runtime) {}
  // At most `max_output_bytes`, beside the memory limit.
  TextBuilder(Runtime& runtime, size_t max_output_bytes)
      : runtime_(runtime), max_output_bytes_(max_output_bytes) {}

  // False once a limit was hit: a loop may end early.
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  void Append(std::string_view bytes, bool trusted);
  void Append(const Text& text) { Append(text, 0, text.size()); }
  void Append(const Text& text, size_t begin, size_t end);
  void AppendRepeated(const Text& text, int64_t times);

  absl::StatusOr<Text> FinishText();
  ValueOr Finish();

 private:
  bool Reserve(size_t bytes);

  Runtime& runtime_;
  const size_t max_output_bytes_ = SIZE_MAX;
  Text text_;
  Lease lease_;
  absl::Status status_;
};

// INVALID_ARGUMENT, what a wrong template or input amounts to; the line is added where it is known.
absl::Status TemplateError(std::string message);

// Arguments in the type that is wanted, or an error that names the parameter.
absl::StatusOr<int64_t> IntegerArgument(const Value* value, int64_t absent, std::string_view name);
absl::StatusOr<const Text*> TextArgument(const Value* value, std::string_view name);

}  // namespace sirocco::jinja
