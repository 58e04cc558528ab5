// The expressions of interpreter.h.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/chat/attributes.h"
#include "engine/chat/filters.h"
#include "engine/chat/interpreter.h"
#include "engine/chat/interpreter_internal.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"

namespace sirocco::jinja {

ValueOr Interpreter::Evaluate(const Expression& expression) {
  const Level level(this);
  absl::Status step = level.Check();
  ValueOr value =
      step.ok() ? std::visit([this](const auto& node) { return Evaluate(node); }, expression.node)
                : ValueOr(std::move(step));
  if (!value.ok() && error_line_ == 0) error_line_ = expression.line;
  return value;
}

ValueOr Interpreter::Evaluate(const Literal& node) { return node.value; }

ValueOr Interpreter::Evaluate(const Variable& node) {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    const auto found = scope->variables.find(node.name);
    if (found != scope->variables.end()) return found->second;
  }
  if (const Function* global = template_.globals[node.name]) {
    return Value::Pointer(Kind::kFunction, global);
  }
  return runtime_.Undefined(absl::StrCat("'", template_.names[node.name], "' is undefined"));
}

ValueOr Interpreter::Evaluate(const SequenceLiteral& node) {
  std::vector<Value> items;
  items.reserve(node.items.size());
  for (const ExpressionPtr& expression : node.items) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value item, Evaluate(*expression));
    items.push_back(std::move(item));
  }
  return node.tuple ? runtime_.Tuple(std::move(items)) : runtime_.List(std::move(items));
}

ValueOr Interpreter::Evaluate(const DictLiteral& node) {
  auto dict = std::make_shared<DictObject>();
  for (const auto& [key_expression, value_expression] : node.entries) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value key, Evaluate(*key_expression));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, Evaluate(*value_expression));
    if (!DictObject::CanBeKey(key)) {
      return TemplateError(absl::StrCat("a value of type '", std::string(TypeName(key)),
                                        "' cannot be the key of a dict"));
    }
    dict->Set(std::move(key), std::move(value));
  }
  return runtime_.Dict(std::move(dict));
}

ValueOr Interpreter::Evaluate(const Unary& node) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value operand, Evaluate(*node.operand));
  switch (node.op) {
    case Unary::Operator::kNot:
      return Value::Bool(!IsTrue(operand));
    case Unary::Operator::kNegate:
      return Negate(operand);
    case Unary::Operator::kPlus:
      return Plus(operand);
  }
  return operand;
}

ValueOr Interpreter::Evaluate(const ArithmeticChain& node) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Value result, Evaluate(*node.first));
  for (const auto& [op, expression] : node.rest) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value operand, Evaluate(*expression));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(result, Binary(runtime_, op, result, operand));
  }
  return result;
}

ValueOr Interpreter::Evaluate(const ComparisonChain& node) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Value left, Evaluate(*node.first));
  for (const auto& [op, expression] : node.rest) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value right, Evaluate(*expression));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const bool holds, Compare(runtime_, op, left, right));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

ValueOr Interpreter::Evaluate(const Logical& node) {
  Value value;
  for (const ExpressionPtr& expression : node.operands) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(value, Evaluate(*expression));
    if (IsTrue(value) != node.conjunction) break;
  }
  return value;
}

ValueOr Interpreter::Evaluate(const Concatenation& node) {
  TextBuilder builder(runtime_);
  for (const ExpressionPtr& expression : node.operands) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression));
    SIROCCO_CHAT_RETURN_IF_ERROR(AppendStr(runtime_, value, &builder));
  }
  return builder.Finish();
}

ValueOr Interpreter::Evaluate(const Conditional& node) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value test, Evaluate(*node.test));
  if (IsTrue(test)) return Evaluate(*node.then);
  if (node.otherwise != nullptr) return Evaluate(*node.otherwise);
  return runtime_.Undefined(
      "the inline if-expression evaluated to false and no else section was defined.");
}

ValueOr Interpreter::Evaluate(const Postfix& node) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Value base, Evaluate(*node.base));
  return Apply(std::move(base), node.steps);
}

ValueOr Interpreter::Apply(Value value, const std::vector<PostfixStep>& steps) {
  for (const PostfixStep& step : steps) {
    absl::Status status = runtime_.meter().Step();
    ValueOr result =
        status.ok() ? std::visit([&](const auto& typed) { return Apply(value, typed); }, step.step)
                    : ValueOr(std::move(status));
    if (!result.ok()) {
      if (error_line_ == 0) error_line_ = step.line;
      return result;
    }
    value = *std::move(result);
  }
  return value;
}

ValueOr Interpreter::Apply(const Value& value, const AttributeStep& step) {
  return GetAttribute(runtime_, value, step.name);
}

ValueOr Interpreter::Apply(const Value& value, const ItemStep& step) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value key, Evaluate(*step.key));
  return GetItem(runtime_, value, key);
}

ValueOr Interpreter::Apply(const Value& value, const SliceStep& step) {
  const auto bound = [this](const ExpressionPtr& expression) {
    return expression == nullptr ? ValueOr(Value::None()) : Evaluate(*expression);
  };
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value start, bound(step.start));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value stop, bound(step.stop));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value stride, bound(step.step));
  return Slice(runtime_, value, start, stop, stride);
}

ValueOr Interpreter::Apply(const Value& value, const CallStep& step) {
  Lease lease;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(CallArgs args, EvaluateArguments(step.arguments, &lease));
  return Call(value, std::move(args));
}

ValueOr Interpreter::Apply(const Value& value, const FilterStep& step) {
  const Function* filter = step.filter;
  if (filter == nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(filter, FindFilter(step.name));
  }
  Lease lease;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const CallArgs args, EvaluateArguments(step.arguments, &lease));
  return CallFunction(runtime_, *filter, value, args);
}

ValueOr Interpreter::Apply(const Value& value, const TestStep& step) {
  const Function* test = step.test;
  if (test == nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(test, FindTest(step.name));
  }
  Lease lease;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const CallArgs args, EvaluateArguments(step.arguments, &lease));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value result, CallFunction(runtime_, *test, value, args));
  return Value::Bool(IsTrue(result) != step.negated);
}

absl::StatusOr<CallArgs> Interpreter::EvaluateArguments(const Arguments& arguments, Lease* lease) {
  CallArgs args;
  args.positional.reserve(arguments.positional.size());
  for (const ExpressionPtr& expression : arguments.positional) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    args.positional.push_back(std::move(value));
  }
  for (const auto& [name, expression] : arguments.named) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    args.named.emplace_back(name, std::move(value));
  }
  if (arguments.positional_rest != nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value rest, Evaluate(*arguments.positional_rest));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime_, rest));
    SIROCCO_CHAT_RETURN_IF_ERROR(
        lease->Grow(&runtime_.meter(), items->items.size() * sizeof(Value) * 2));
    args.positional.insert(args.positional.end(), items->items.begin(), items->items.end());
  }
  if (arguments.named_rest != nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value rest, Evaluate(*arguments.named_rest));
    if (!rest.is(Kind::kDict)) return TemplateError("argument after ** must be a mapping");
    for (const auto& [key, value] : rest.dict().entries) {
      if (!key.is_string()) return TemplateError("keywords must be strings");
      SIROCCO_CHAT_RETURN_IF_ERROR(
          lease->Grow(&runtime_.meter(), key.bytes().size() + 2 * sizeof(args.named[0])));
      args.named.emplace_back(std::string(key.bytes()), value);
    }
  }
  return args;
}

ValueOr Interpreter::Call(const Value& callee, CallArgs args) {
  switch (callee.kind()) {
    case Kind::kMacro:
      return CallMacro(callee.macro(), std::move(args));
    case Kind::kFunction:
      return CallFunction(runtime_, callee.function(), Value(), args);
    case Kind::kMethod:
      return CallFunction(runtime_, *callee.method().method, callee.method().self, args);
    case Kind::kUndefined:
      return UndefinedError(callee);
    case Kind::kLoop:
      return absl::UnimplementedError("a recursive loop is not supported");
    default:
      return TemplateError(
          absl::StrCat("'", std::string(TypeName(callee)), "' object is not callable"));
  }
}

}  // namespace sirocco::jinja
