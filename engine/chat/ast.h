// A parsed template. Chains of operators, filters and calls are flat lists, so that the tree is
// only as deep as the template nests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/chat/operators.h"
#include "engine/chat/runtime.h"
#include "engine/chat/text.h"
#include "engine/chat/value.h"

namespace sirocco::jinja {

// The position of a variable's name in Template::names.
using NameId = uint32_t;

// Names with a meaning of their own; they are the first of every template.
enum SpecialName : NameId { kLoopName, kCallerName, kVarargsName, kKwargsName, kSpecialNames };

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Literal {
  Value value;  // trusted
};
struct Variable {
  NameId name;
};
struct SequenceLiteral {
  std::vector<ExpressionPtr> items;
  bool tuple = false;
};
struct DictLiteral {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
struct Unary {
  enum class Operator { kNot, kNegate, kPlus } op;
  ExpressionPtr operand;
};
// first op operand op operand ..., from the left; operators of one precedence.
struct ArithmeticChain {
  ExpressionPtr first;
  std::vector<std::pair<BinaryOperator, ExpressionPtr>> rest;
};
struct ComparisonChain {
  ExpressionPtr first;
  std::vector<std::pair<Comparison, ExpressionPtr>> rest;
};
struct Logical {
  bool conjunction = false;  // and; else or
  std::vector<ExpressionPtr> operands;
};
struct Concatenation {
  std::vector<ExpressionPtr> operands;  // a ~ b ~ c
};
struct Conditional {
  ExpressionPtr test;
  ExpressionPtr then;
  ExpressionPtr otherwise;  // may be null: undefined
};

struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr positional_rest;  // *rest; may be null
  ExpressionPtr named_rest;       // **rest; may be null
};

struct AttributeStep {
  std::string name;
};
struct ItemStep {
  ExpressionPtr key;
};
struct SliceStep {
  ExpressionPtr start, stop, step;  // may be null
};
struct CallStep {
  Arguments arguments;
};
struct FilterStep {
  const Function* filter = nullptr;  // null: unknown, an error where it is reached
  std::string name;
  Arguments arguments;
};
struct TestStep {
  const Function* test = nullptr;  // as in FilterStep
  std::string name;
  Arguments arguments;
  bool negated = false;
};
struct PostfixStep {
  int line = 0;
  std::variant<AttributeStep, ItemStep, SliceStep, CallStep, FilterStep, TestStep> step;
};
// base.name[key](arguments)|filter is test ..., from the left.
struct Postfix {
  ExpressionPtr base;
  std::vector<PostfixStep> steps;
};

struct Expression {
  int line = 0;
  std::variant<Literal, Variable, SequenceLiteral, DictLiteral, Unary, ArithmeticChain,
               ComparisonChain, Logical, Concatenation, Conditional, Postfix>
      node;
};

// What is assigned to: a name, an attribute of a namespace, or several in turn.
struct Target {
  enum class Form { kName, kAttribute, kTuple } form = Form::kName;
  NameId name = 0;
  std::string attribute;
  std::vector<Target> parts;
};

struct Statement;
using Block = std::vector<Statement>;

struct TextStatement {
  Text text;
};
struct OutputStatement {
  std::vector<ExpressionPtr> values;
};
struct IfStatement {
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
};
struct ForStatement {
  Target target;
  ExpressionPtr sequence;
  ExpressionPtr filter;  // may be null
  Block body;
  Block otherwise;
  bool uses_loop = false;  // the variable `loop`
};
struct SetStatement {
  Target target;
  ExpressionPtr value;
};
// The text of a block, filtered. The filters are steps on nothing yet.
struct SetBlockStatement {
  Target target;
  std::vector<PostfixStep> filters;
  Block body;
};
struct FilterBlockStatement {
  std::vector<PostfixStep> filters;
  Block body;
};
struct MacroStatement {
  std::string name;
  NameId name_id = 0;
  struct Parameter {
    std::string name;
    NameId name_id = 0;
    ExpressionPtr absent;  // the default; may be null
  };
  std::vector<Parameter> parameters;
  Block body;
  // The special variables that the body reads.
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
  bool takes_caller = false;  // as a parameter of its own
};
struct CallBlockStatement {
  ExpressionPtr callee;  // what is called
  Arguments arguments;
  MacroStatement caller;
};
struct WithStatement {
  std::vector<std::pair<Target, ExpressionPtr>> variables;
  Block body;
};
// {% generation %}: marks what the model said; a scope like a macro's.
struct GenerationStatement {
  Block body;
};
struct BreakStatement {};
struct ContinueStatement {};

struct Statement {
  int line = 0;
  std::variant<TextStatement, OutputStatement, IfStatement, ForStatement, SetStatement,
               SetBlockStatement, FilterBlockStatement, MacroStatement, CallBlockStatement,
               WithStatement, GenerationStatement, BreakStatement, ContinueStatement>
      node;
};

struct Template {
  Block body;
  std::vector<std::string> names;
  std::vector<const Function*> globals;  // by name; null: none
};

}  // namespace sirocco::jinja
