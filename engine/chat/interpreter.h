// Runs a parsed template.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/chat/ast.h"
#include "engine/chat/runtime.h"

namespace sirocco::jinja {

// Variables of a block. A macro sees those of the blocks it is written in, also when they have
// ended.
struct Scope {
  Scope* parent = nullptr;
  absl::flat_hash_map<NameId, Value> variables;
  bool captured = false;
};

struct MacroObject {
  const MacroStatement* statement = nullptr;
  Scope* scope = nullptr;  // where it was defined
};

// One rendering; one thread. Everything that is passed in must outlive it.
class Interpreter {
 public:
  Interpreter(Runtime& runtime, const Template& parsed);

  // Before Run. The names a template does not mention need not be given.
  void SetVariable(NameId name, Value value);
  // The rendered text.
  absl::StatusOr<Text> Run(size_t max_output_bytes);
  // The line of the statement or expression that failed; 0 where none did.
  int error_line() const { return error_line_; }

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using FlowOr = absl::StatusOr<Flow>;

  // Counts what is being evaluated within what, as a bound on the stack.
  class Level;
  // A scope for as long as it lives.
  class InnerScope;
  // Sends the output elsewhere for as long as it lives.
  class Capture;

  // --- statements (interpreter.cc) ---
  FlowOr Execute(const Block& block);
  FlowOr Execute(const Statement& statement);
  FlowOr Run(const TextStatement& node);
  FlowOr Run(const OutputStatement& node);
  FlowOr Run(const IfStatement& node);
  FlowOr Run(const ForStatement& node);
  FlowOr Run(const SetStatement& node);
  FlowOr Run(const SetBlockStatement& node);
  FlowOr Run(const FilterBlockStatement& node);
  FlowOr Run(const MacroStatement& node);
  FlowOr Run(const CallBlockStatement& node);
  FlowOr Run(const WithStatement& node);
  FlowOr Run(const GenerationStatement& node);
  FlowOr Run(const BreakStatement& node);
  FlowOr Run(const ContinueStatement& node);
  FlowOr RunPlainLoop(const ForStatement& node, const SequenceRef& items);
  FlowOr RunCountedLoop(const ForStatement& node, SequenceRef items);
  absl::StatusOr<SequenceRef> Filter(const ForStatement& node, const SequenceRef& items);
  absl::StatusOr<bool> BindItem(const ForStatement& node, const Value& item);
  absl::Status Assign(const Target& target, const Value& value);
  absl::Status Unpack(const Target& target, const Value& value);
  absl::Status Emit(const Value& value);
  ValueOr DefineMacro(const MacroStatement& statement);
  ValueOr CallMacro(const MacroObject& macro, CallArgs args);
  absl::Status BindParameters(const MacroStatement& macro, CallArgs* args, Scope* scope);
  absl::Status BindSpecial(const MacroStatement& macro, CallArgs* args, Scope* scope);

  // --- expressions (evaluator.cc) ---
  ValueOr Evaluate(const Expression& expression);
  ValueOr Evaluate(const Literal& node);
  ValueOr Evaluate(const Variable& node);
  ValueOr Evaluate(const SequenceLiteral& node);
  ValueOr Evaluate(const DictLiteral& node);
  ValueOr Evaluate(const Unary& node);
  ValueOr Evaluate(const ArithmeticChain& node);
  ValueOr Evaluate(const ComparisonChain& node);
  ValueOr Evaluate(const Logical& node);
  ValueOr Evaluate(const Concatenation& node);
  ValueOr Evaluate(const Conditional& node);
  ValueOr Evaluate(const Postfix& node);
  ValueOr Apply(Value value, const std::vector<PostfixStep>& steps);
  ValueOr Apply(const Value& value, const AttributeStep& step);
  ValueOr Apply(const Value& value, const ItemStep& step);
  ValueOr Apply(const Value& value, const SliceStep& step);
  ValueOr Apply(const Value& value, const CallStep& step);
  ValueOr Apply(const Value& value, const FilterStep& step);
  ValueOr Apply(const Value& value, const TestStep& step);
  absl::StatusOr<CallArgs> EvaluateArguments(const Arguments& arguments, Lease* lease);
  ValueOr Call(const Value& callee, CallArgs args);

  Runtime& runtime_;
  const Template& template_;
  Scope context_;  // what the caller set
  Scope root_;
  Scope* scope_ = &root_;
  TextBuilder* out_ = nullptr;
  int64_t level_ = 0;
  int error_line_ = 0;
  // Scopes live to the end, as macros may hold them; those that none holds are used again.
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  std::deque<MacroObject> macros_;
};

}  // namespace sirocco::jinja
