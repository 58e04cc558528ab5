#include "engine/chat/interpreter.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/chat/interpreter_internal.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"

namespace sirocco::jinja {

class Interpreter::InnerScope {
 public:
  // Within `parent`, which is left and entered again.
  InnerScope(Interpreter* interpreter, Scope* parent)
      : interpreter_(*interpreter), outer_(interpreter_.scope_) {
    if (interpreter_.free_scopes_.empty()) {
      scope_ = &interpreter_.scopes_.emplace_back();
    } else {
      scope_ = interpreter_.free_scopes_.back();
      interpreter_.free_scopes_.pop_back();
    }
    scope_->parent = parent;
    interpreter_.scope_ = scope_;
  }
  ~InnerScope() {
    interpreter_.scope_ = outer_;
    if (scope_->captured) return;
    scope_->variables.clear();
    interpreter_.free_scopes_.push_back(scope_);
  }
  InnerScope(const InnerScope&) = delete;
  InnerScope& operator=(const InnerScope&) = delete;

 private:
  Interpreter& interpreter_;
  Scope* const outer_;
  Scope* scope_;
};

class Interpreter::Capture {
 public:
  explicit Capture(Interpreter* interpreter)
      : interpreter_(*interpreter),
        builder_(interpreter_.runtime_),
        outer_(std::exchange(interpreter_.out_, &builder_)) {}
  ~Capture() { interpreter_.out_ = outer_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  ValueOr Finish() { return builder_.Finish(); }

 private:
  Interpreter& interpreter_;
  TextBuilder builder_;
  TextBuilder* const outer_;
};

Interpreter::Interpreter(Runtime& runtime, const Template& parsed)
    : runtime_(runtime), template_(parsed) {
  root_.parent = &context_;
}

void Interpreter::SetVariable(NameId name, Value value) {
  context_.variables[name] = std::move(value);
}

absl::StatusOr<Text> Interpreter::Run(size_t max_output_bytes) {
  TextBuilder builder(runtime_, max_output_bytes);
  out_ = &builder;
  SIROCCO_CHAT_RETURN_IF_ERROR(Execute(template_.body).status());
  return builder.FinishText();
}

Interpreter::FlowOr Interpreter::Execute(const Block& block) {
  const Level level(this);
  SIROCCO_CHAT_RETURN_IF_ERROR(level.Check());
  for (const Statement& statement : block) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Flow flow, Execute(statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::FlowOr Interpreter::Execute(const Statement& statement) {
  absl::Status step = runtime_.meter().Step();
  FlowOr flow = step.ok()
                    ? std::visit([this](const auto& node) { return Run(node); }, statement.node)
                    : FlowOr(std::move(step));
  if (!flow.ok() && error_line_ == 0) error_line_ = statement.line;
  return flow;
}

Interpreter::FlowOr Interpreter::Run(const TextStatement& node) {
  out_->Append(node.text);
  SIROCCO_CHAT_RETURN_IF_ERROR(out_->status());
  return Flow::kNext;
}

absl::Status Interpreter::Emit(const Value& value) {
  SIROCCO_CHAT_RETURN_IF_ERROR(AppendStr(runtime_, value, out_));
  SIROCCO_CHAT_RETURN_IF_ERROR(out_->status());
  return runtime_.meter().StepBytes(value.is_string() ? value.bytes().size() : 0);
}

Interpreter::FlowOr Interpreter::Run(const OutputStatement& node) {
  for (const ExpressionPtr& expression : node.values) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression));
    SIROCCO_CHAT_RETURN_IF_ERROR(Emit(value));
  }
  return Flow::kNext;
}

Interpreter::FlowOr Interpreter::Run(const IfStatement& node) {
  for (const auto& [test, body] : node.branches) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value value, Evaluate(*test));
    if (IsTrue(value)) return Execute(body);
  }
  return Execute(node.otherwise);
}

// The items that the loop's filter lets pass.
absl::StatusOr<SequenceRef> Interpreter::Filter(const ForStatement& node,
                                                const SequenceRef& items) {
  std::vector<Value> passed;
  const InnerScope inner(this, scope_);
  for (const Value& item : items->items) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const bool passes, BindItem(node, item));
    if (passes) passed.push_back(item);
  }
  return runtime_.Sequence(std::move(passed));
}

// Clears the scope, assigns the item, and asks the filter.
absl::StatusOr<bool> Interpreter::BindItem(const ForStatement& node, const Value& item) {
  scope_->variables.clear();
  SIROCCO_CHAT_RETURN_IF_ERROR(Assign(node.target, item));
  if (node.filter == nullptr) return true;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value passes, Evaluate(*node.filter));
  return IsTrue(passes);
}

// A loop whose body does not ask about the loop: each item is filtered when its turn comes.
Interpreter::FlowOr Interpreter::RunPlainLoop(const ForStatement& node, const SequenceRef& items) {
  bool any = false;
  {
    const InnerScope inner(this, scope_);
    for (const Value& item : items->items) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(const bool passes, BindItem(node, item));
      if (!passes) continue;
      any = true;
      SIROCCO_CHAT_ASSIGN_OR_RETURN(const Flow flow, Execute(node.body));
      if (flow == Flow::kBreak) break;
    }
  }
  if (any) return Flow::kNext;
  const InnerScope inner(this, scope_);
  return Execute(node.otherwise);
}

// A loop with the variable `loop`, which must know all items beforehand.
Interpreter::FlowOr Interpreter::RunCountedLoop(const ForStatement& node, SequenceRef items) {
  if (node.filter != nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(items, Filter(node, items));
  }
  const InnerScope inner(this, scope_);
  if (items->items.empty()) return Execute(node.otherwise);
  SIROCCO_CHAT_ASSIGN_OR_RETURN(LoopObject* const loop, runtime_.NewLoop(items));
  for (const Value& item : items->items) {
    scope_->variables.clear();
    scope_->variables[kLoopName] = Value::Pointer(Kind::kLoop, loop);
    SIROCCO_CHAT_RETURN_IF_ERROR(Assign(node.target, item));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Flow flow, Execute(node.body));
    if (flow == Flow::kBreak) break;
    ++loop->index0;
  }
  // The loop may be kept in a namespace; its items need not be.
  loop->items = nullptr;
  return Flow::kNext;
}

Interpreter::FlowOr Interpreter::Run(const ForStatement& node) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value sequence, Evaluate(*node.sequence));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(SequenceRef items, Iterate(runtime_, sequence));
  return node.uses_loop ? RunCountedLoop(node, std::move(items)) : RunPlainLoop(node, items);
}

absl::Status Interpreter::Unpack(const Target& target, const Value& value) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime_, value));
  const size_t expected = target.parts.size();
  if (items->items.size() != expected) {
    return TemplateError(absl::StrCat(items->items.size() < expected ? "not enough" : "too many",
                                      " values to unpack (expected ", expected, ", got ",
                                      items->items.size(), ")"));
  }
  for (size_t i = 0; i < expected; ++i) {
    SIROCCO_CHAT_RETURN_IF_ERROR(Assign(target.parts[i], items->items[i]));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::Assign(const Target& target, const Value& value) {
  if (target.form == Target::Form::kTuple) return Unpack(target, value);
  if (target.form == Target::Form::kName) {
    scope_->variables[target.name] = value;
    return absl::OkStatus();
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value owner, Evaluate(Variable{target.name}));
  if (!owner.is(Kind::kNamespace)) {
    return TemplateError("cannot assign attribute on non-namespace object");
  }
  return runtime_.SetAttribute(&owner.name_space(), target.attribute, value);
}

Interpreter::FlowOr Interpreter::Run(const SetStatement& node) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.value));
  SIROCCO_CHAT_RETURN_IF_ERROR(Assign(node.target, value));
  return Flow::kNext;
}

Interpreter::FlowOr Interpreter::Run(const SetBlockStatement& node) {
  Capture capture(this);
  {
    const InnerScope inner(this, scope_);
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Flow flow, Execute(node.body));
    if (flow != Flow::kNext) return flow;
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, capture.Finish());
  SIROCCO_CHAT_ASSIGN_OR_RETURN(value, Apply(std::move(value), node.filters));
  SIROCCO_CHAT_RETURN_IF_ERROR(Assign(node.target, value));
  return Flow::kNext;
}

Interpreter::FlowOr Interpreter::Run(const FilterBlockStatement& node) {
  Value value;
  {
    Capture capture(this);
    const InnerScope inner(this, scope_);
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Flow flow, Execute(node.body));
    if (flow != Flow::kNext) return flow;
    SIROCCO_CHAT_ASSIGN_OR_RETURN(value, capture.Finish());
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(value, Apply(std::move(value), node.filters));
  SIROCCO_CHAT_RETURN_IF_ERROR(Emit(value));
  return Flow::kNext;
}

ValueOr Interpreter::DefineMacro(const MacroStatement& statement) {
  // What the macro sees must not be used again, nor what those scopes see.
  size_t newly_captured = 0;
  for (Scope* scope = scope_; scope != nullptr && !scope->captured; scope = scope->parent) {
    scope->captured = true;
    ++newly_captured;
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(
      runtime_.meter().Acquire(sizeof(MacroObject) + newly_captured * sizeof(Scope) * 2));
  const MacroObject& macro = macros_.emplace_back(MacroObject{&statement, scope_});
  return Value::Pointer(Kind::kMacro, &macro);
}

Interpreter::FlowOr Interpreter::Run(const MacroStatement& node) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Value macro, DefineMacro(node));
  scope_->variables[node.name_id] = std::move(macro);
  return Flow::kNext;
}

absl::Status Interpreter::BindParameters(const MacroStatement& macro, CallArgs* args,
                                         Scope* scope) {
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const MacroStatement::Parameter& parameter = macro.parameters[i];
    Value& variable = scope->variables[parameter.name_id];
    if (i < args->positional.size()) {
      variable = args->positional[i];
      continue;
    }
    const auto named = std::find_if(args->named.begin(), args->named.end(), [&](const auto& entry) {
      return entry.first == parameter.name;
    });
    if (named != args->named.end()) {
      variable = std::move(named->second);
      args->named.erase(named);
      continue;
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        variable,
        runtime_.Undefined(absl::StrCat("parameter '", parameter.name, "' was not provided")));
    if (parameter.absent == nullptr) continue;
    // A default may read the parameters before it; evaluating it may move the variables.
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value absent, Evaluate(*parameter.absent));
    scope->variables[parameter.name_id] = std::move(absent);
  }
  return absl::OkStatus();
}

// The variables caller, varargs and kwargs, and the arguments that no parameter takes.
absl::Status Interpreter::BindSpecial(const MacroStatement& macro, CallArgs* args, Scope* scope) {
  if (macro.uses_caller && !macro.takes_caller) {
    const auto named = std::find_if(args->named.begin(), args->named.end(),
                                    [](const auto& entry) { return entry.first == "caller"; });
    if (named != args->named.end()) {
      scope->variables[kCallerName] = std::move(named->second);
      args->named.erase(named);
    } else {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(scope->variables[kCallerName],
                                    runtime_.Undefined("No caller defined"));
    }
  }
  if (macro.uses_kwargs) {
    auto dict = std::make_shared<DictObject>();
    for (auto& [name, value] : args->named) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(Value key, runtime_.String(name, false));
      dict->Set(std::move(key), std::move(value));
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(scope->variables[kKwargsName], runtime_.Dict(std::move(dict)));
  } else if (!args->named.empty()) {
    return TemplateError(absl::StrCat("macro '", macro.name, "' takes no keyword argument '",
                                      Shortened(args->named.front().first), "'"));
  }
  const size_t taken = std::min(args->positional.size(), macro.parameters.size());
  if (macro.uses_varargs) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        scope->variables[kVarargsName],
        runtime_.Tuple({args->positional.begin() + static_cast<std::ptrdiff_t>(taken),
                        args->positional.end()}));
  } else if (args->positional.size() > taken) {
    return TemplateError(absl::StrCat("macro '", macro.name, "' takes not more than ",
                                      macro.parameters.size(), " argument(s)"));
  }
  return absl::OkStatus();
}

ValueOr Interpreter::CallMacro(const MacroObject& macro, CallArgs args) {
  Capture capture(this);
  const InnerScope inner(this, macro.scope);
  SIROCCO_CHAT_RETURN_IF_ERROR(BindParameters(*macro.statement, &args, scope_));
  SIROCCO_CHAT_RETURN_IF_ERROR(BindSpecial(*macro.statement, &args, scope_));
  SIROCCO_CHAT_RETURN_IF_ERROR(Execute(macro.statement->body).status());
  return capture.Finish();
}

Interpreter::FlowOr Interpreter::Run(const CallBlockStatement& node) {
  Lease lease;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value callee, Evaluate(*node.callee));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(CallArgs args, EvaluateArguments(node.arguments, &lease));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Value caller, DefineMacro(node.caller));
  args.named.emplace_back("caller", std::move(caller));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value value, Call(callee, std::move(args)));
  SIROCCO_CHAT_RETURN_IF_ERROR(Emit(value));
  return Flow::kNext;
}

Interpreter::FlowOr Interpreter::Run(const WithStatement& node) {
  std::vector<Value> values;
  for (const auto& [target, expression] : node.variables) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    values.push_back(std::move(value));
  }
  const InnerScope inner(this, scope_);
  for (size_t i = 0; i < values.size(); ++i) {
    SIROCCO_CHAT_RETURN_IF_ERROR(Assign(node.variables[i].first, values[i]));
  }
  return Execute(node.body);
}

Interpreter::FlowOr Interpreter::Run(const GenerationStatement& node) {
  const InnerScope inner(this, scope_);
  return Execute(node.body);
}

Interpreter::FlowOr Interpreter::Run(const BreakStatement&) { return Flow::kBreak; }
Interpreter::FlowOr Interpreter::Run(const ContinueStatement&) { return Flow::kContinue; }

}  // namespace sirocco::jinja
