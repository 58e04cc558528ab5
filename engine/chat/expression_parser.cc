// The expressions of parser.h, from the loosest operator to the tightest.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/chat/filters.h"
#include "engine/chat/parser.h"
#include "engine/chat/parser_internal.h"
#include "engine/chat/status_macros.h"

namespace sirocco::jinja {
namespace {

// `a if b if c` wraps what stands before it; more of that in one expression is no template's need.
constexpr int kMaxConditions = 4;

}  // namespace

bool Parser::AtTupleEnd() const {
  return current().Is(TokenType::kVariableEnd) || current().Is(TokenType::kBlockEnd) ||
         current().IsOperator(")");
}

Parser::ExpressionOr Parser::ParseExpression() {
  const Nesting nesting(this);
  SIROCCO_CHAT_RETURN_IF_ERROR(nesting.Check());
  const int line = current().line;
  const absl::Status unknown = unknown_;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr expression, ParseOr());
  for (int conditions = 0; SkipName("if"); ++conditions) {
    if (conditions == kMaxConditions) return Fail("too many conditions in one expression");
    // What stood before the condition may never be reached.
    unknown_ = unknown;
    ++conditional_;
    Conditional node;
    node.then = std::move(expression);
    SIROCCO_CHAT_ASSIGN_OR_RETURN(node.test, ParseOr());
    if (SkipName("else")) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(node.otherwise, ParseExpression());
    }
    --conditional_;
    expression = Make(line, std::move(node));
  }
  return expression;
}

Parser::ExpressionOr Parser::ParseTuple(bool with_conditional, bool parenthesized) {
  const int line = current().line;
  SequenceLiteral tuple;
  tuple.tuple = true;
  bool comma = false;
  while (true) {
    if (comma && (AtTupleEnd() || current().IsName("recursive"))) break;
    if (!comma && AtTupleEnd()) break;  // nothing at all
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr item,
                                  with_conditional ? ParseExpression() : ParseOr());
    tuple.items.push_back(std::move(item));
    if (!SkipOperator(",")) break;
    comma = true;
  }
  if (!comma) {
    if (!tuple.items.empty()) return std::move(tuple.items[0]);
    if (!parenthesized) return Unexpected("an expression");
  }
  return Make(line, std::move(tuple));
}

Parser::ExpressionOr Parser::ParseOr() {
  const int line = current().line;
  Logical node;
  do {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseAnd());
    node.operands.push_back(std::move(operand));
  } while (SkipName("or"));
  if (node.operands.size() == 1) return std::move(node.operands[0]);
  return Make(line, std::move(node));
}

Parser::ExpressionOr Parser::ParseAnd() {
  const int line = current().line;
  Logical node;
  node.conjunction = true;
  do {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
    node.operands.push_back(std::move(operand));
  } while (SkipName("and"));
  if (node.operands.size() == 1) return std::move(node.operands[0]);
  return Make(line, std::move(node));
}

Parser::ExpressionOr Parser::ParseNot() {
  if (!current().IsName("not")) return ParseComparison();
  const Nesting nesting(this);
  SIROCCO_CHAT_RETURN_IF_ERROR(nesting.Check());
  const int line = current().line;
  Skip();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  return Make(line, Unary{Unary::Operator::kNot, std::move(operand)});
}

std::optional<Comparison> Parser::TakeComparison() {
  static constexpr std::pair<std::string_view, Comparison> kComparisons[] = {
      {"==", Comparison::kEqual},  {"!=", Comparison::kNotEqual},
      {"<", Comparison::kLess},    {"<=", Comparison::kLessEqual},
      {">", Comparison::kGreater}, {">=", Comparison::kGreaterEqual},
  };
  for (const auto& [op, comparison] : kComparisons) {
    if (SkipOperator(op)) return comparison;
  }
  if (SkipName("in")) return Comparison::kIn;
  if (current().IsName("not") && next().IsName("in")) {
    Skip();
    Skip();
    return Comparison::kNotIn;
  }
  return std::nullopt;
}

Parser::ExpressionOr Parser::ParseComparison() {
  const int line = current().line;
  ComparisonChain node;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.first, ParseSum());
  while (const std::optional<Comparison> comparison = TakeComparison()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    node.rest.emplace_back(*comparison, std::move(operand));
  }
  if (node.rest.empty()) return std::move(node.first);
  return Make(line, std::move(node));
}

template <typename Next>
Parser::ExpressionOr Parser::ParseArithmetic(
    std::initializer_list<std::pair<std::string_view, BinaryOperator>> operators,
    const Next& next_level) {
  const int line = current().line;
  ArithmeticChain node;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.first, next_level());
  while (true) {
    const auto* const found =
        std::find_if(operators.begin(), operators.end(),
                     [&](const auto& entry) { return current().IsOperator(entry.first); });
    if (found == operators.end()) break;
    Skip();
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr operand, next_level());
    node.rest.emplace_back(found->second, std::move(operand));
  }
  if (node.rest.empty()) return std::move(node.first);
  return Make(line, std::move(node));
}

Parser::ExpressionOr Parser::ParseSum() {
  return ParseArithmetic({{"+", BinaryOperator::kAdd}, {"-", BinaryOperator::kSubtract}},
                         [this] { return ParseConcatenation(); });
}

Parser::ExpressionOr Parser::ParseConcatenation() {
  const int line = current().line;
  Concatenation node;
  do {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseProduct());
    node.operands.push_back(std::move(operand));
  } while (SkipOperator("~"));
  if (node.operands.size() == 1) return std::move(node.operands[0]);
  return Make(line, std::move(node));
}

Parser::ExpressionOr Parser::ParseProduct() {
  return ParseArithmetic({{"*", BinaryOperator::kMultiply},
                          {"/", BinaryOperator::kDivide},
                          {"//", BinaryOperator::kFloorDivide},
                          {"%", BinaryOperator::kModulo}},
                         [this] { return ParsePower(); });
}

// From the left, as jinja2 has it; Python's own powers go from the right.
Parser::ExpressionOr Parser::ParsePower() {
  return ParseArithmetic({{"**", BinaryOperator::kPower}},
                         [this] { return ParseUnary(/*with_filters=*/true); });
}

Parser::ExpressionOr Parser::ParseUnary(bool with_filters) {
  const int line = current().line;
  ExpressionPtr base;
  const bool negates = current().IsOperator("-");
  if (negates || current().IsOperator("+")) {
    const Nesting nesting(this);
    SIROCCO_CHAT_RETURN_IF_ERROR(nesting.Check());
    Skip();
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(false));
    base = Make(line, Unary{negates ? Unary::Operator::kNegate : Unary::Operator::kPlus,
                            std::move(operand)});
  } else {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(base, ParsePrimary());
  }
  std::vector<PostfixStep> steps;
  SIROCCO_CHAT_RETURN_IF_ERROR(ParsePostfix(&steps));
  if (with_filters) SIROCCO_CHAT_RETURN_IF_ERROR(ParseFiltersAndTests(&steps));
  if (steps.empty()) return base;
  return Make(line, Postfix{std::move(base), std::move(steps)});
}

Parser::ExpressionOr Parser::ParseLiteralName(const Token& token) {
  const std::string& name = token.text;
  if (name == "true" || name == "True") return Make(token.line, Literal{Value::Bool(true, true)});
  if (name == "false" || name == "False") {
    return Make(token.line, Literal{Value::Bool(false, true)});
  }
  if (name == "none" || name == "None") return Make(token.line, Literal{Value::None(true)});
  const NameId id = Intern(name);
  if (id < kSpecialNames) ++uses_[id];
  return Make(token.line, Variable{id});
}

Parser::ExpressionOr Parser::ParsePrimary() {
  const Token token = current();
  switch (token.type) {
    case TokenType::kName:
      Skip();
      return ParseLiteralName(token);
    case TokenType::kString: {
      std::string value;
      for (; current().Is(TokenType::kString); Skip()) value += current().text;
      auto object = std::make_shared<StringObject>(Text(std::move(value), /*trusted=*/true));
      return Make(token.line, Literal{Value(Kind::kString, std::move(object))});
    }
    case TokenType::kInteger:
      Skip();
      return Make(token.line, Literal{Value::Int(token.integer, true)});
    case TokenType::kFloat:
      Skip();
      return Make(token.line, Literal{Value::Float(token.real, true)});
    default:
      break;
  }
  if (token.IsOperator("[")) return ParseList();
  if (token.IsOperator("{")) return ParseDict();
  if (!SkipOperator("(")) return Unexpected("an expression");
  SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr inner, ParseTuple(true, true));
  SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(")"));
  return inner;
}

Parser::ExpressionOr Parser::ParseList() {
  const int line = current().line;
  Skip();
  SequenceLiteral list;
  while (!current().IsOperator("]")) {
    if (!list.items.empty()) {
      SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(","));
      if (current().IsOperator("]")) break;
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
    list.items.push_back(std::move(item));
  }
  Skip();
  return Make(line, std::move(list));
}

Parser::ExpressionOr Parser::ParseDict() {
  const int line = current().line;
  Skip();
  DictLiteral dict;
  while (!current().IsOperator("}")) {
    if (!dict.entries.empty()) {
      SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(","));
      if (current().IsOperator("}")) break;
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
    SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(":"));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    dict.entries.emplace_back(std::move(key), std::move(value));
  }
  Skip();
  return Make(line, std::move(dict));
}

absl::StatusOr<PostfixStep> Parser::ParseCall() {
  const int line = current().line;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Arguments arguments, ParseArguments());
  return PostfixStep{line, CallStep{std::move(arguments)}};
}

absl::Status Parser::ParsePostfix(std::vector<PostfixStep>* steps) {
  while (true) {
    if (current().IsOperator(".") || current().IsOperator("[")) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(PostfixStep step, ParseSubscript());
      steps->push_back(std::move(step));
    } else if (current().IsOperator("(")) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(PostfixStep step, ParseCall());
      steps->push_back(std::move(step));
    } else {
      return absl::OkStatus();
    }
  }
}

absl::Status Parser::ParseFiltersAndTests(std::vector<PostfixStep>* steps) {
  while (true) {
    if (current().IsOperator("|")) {
      SIROCCO_CHAT_RETURN_IF_ERROR(ParseFilters(steps));
    } else if (current().IsName("is")) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(PostfixStep step, ParseTest());
      steps->push_back(std::move(step));
    } else if (current().IsOperator("(")) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(PostfixStep step, ParseCall());
      steps->push_back(std::move(step));
    } else {
      return absl::OkStatus();
    }
  }
}

absl::Status Parser::ParseFilters(std::vector<PostfixStep>* steps) {
  while (SkipOperator("|")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(PostfixStep step, ParseFilter());
    steps->push_back(std::move(step));
  }
  return absl::OkStatus();
}

void Parser::NoteUnknown(int line, const absl::Status& error) {
  if (conditional_ > 0 || !unknown_.ok()) return;
  unknown_ =
      absl::Status(error.code(), absl::StrCat("chat template line ", line, ": ", error.message()));
}

absl::StatusOr<PostfixStep> Parser::ParseFilter() {
  const int line = current().line;
  FilterStep step;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(step.name, ExpectName());
  const absl::StatusOr<const Function*> filter = FindFilter(step.name);
  if (filter.ok()) {
    step.filter = *filter;
  } else {
    NoteUnknown(line, filter.status());
  }
  if (current().IsOperator("(")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(step.arguments, ParseArguments());
  }
  return PostfixStep{line, std::move(step)};
}

absl::StatusOr<PostfixStep> Parser::ParseTest() {
  const Nesting nesting(this);
  SIROCCO_CHAT_RETURN_IF_ERROR(nesting.Check());
  const int line = current().line;
  Skip();  // is
  TestStep step;
  step.negated = SkipName("not");
  SIROCCO_CHAT_ASSIGN_OR_RETURN(step.name, ExpectName());
  const absl::StatusOr<const Function*> test = FindTest(step.name);
  if (test.ok()) {
    step.test = *test;
  } else {
    NoteUnknown(line, test.status());
  }
  const Token& token = current();
  const bool value = token.Is(TokenType::kName) || token.Is(TokenType::kString) ||
                     token.Is(TokenType::kInteger) || token.Is(TokenType::kFloat) ||
                     token.IsOperator("[") || token.IsOperator("{");
  const bool goes_on = token.IsName("else") || token.IsName("or") || token.IsName("and");
  if (token.IsOperator("(")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(step.arguments, ParseArguments());
  } else if (value && !goes_on) {
    if (token.IsName("is")) return Fail("You cannot chain multiple tests with is");
    const int argument_line = token.line;
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    std::vector<PostfixStep> steps;
    SIROCCO_CHAT_RETURN_IF_ERROR(ParsePostfix(&steps));
    if (!steps.empty()) {
      argument = Make(argument_line, Postfix{std::move(argument), std::move(steps)});
    }
    step.arguments.positional.push_back(std::move(argument));
  }
  return PostfixStep{line, std::move(step)};
}

absl::StatusOr<PostfixStep> Parser::ParseSubscript() {
  const int line = current().line;
  if (SkipOperator(".")) {
    if (current().Is(TokenType::kInteger)) {
      ExpressionPtr index = Make(line, Literal{Value::Int(current().integer, true)});
      Skip();
      return PostfixStep{line, ItemStep{std::move(index)}};
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(std::string name, ExpectName());
    return PostfixStep{line, AttributeStep{std::move(name)}};
  }
  Skip();  // [
  SliceStep slice;
  if (!current().IsOperator(":")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(slice.start, ParseExpression());
    if (SkipOperator("]")) return PostfixStep{line, ItemStep{std::move(slice.start)}};
    if (current().IsOperator(",")) return Unsupported("a subscript of several values");
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(":"));
  if (!current().IsOperator(":") && !current().IsOperator("]")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(slice.stop, ParseExpression());
  }
  if (SkipOperator(":") && !current().IsOperator("]")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(slice.step, ParseExpression());
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator("]"));
  return PostfixStep{line, std::move(slice)};
}

absl::StatusOr<Arguments> Parser::ParseArguments() {
  const int line = current().line;
  const auto invalid = [&] {
    return SyntaxError(line, "invalid syntax for function call expression");
  };
  Skip();  // (
  Arguments arguments;
  bool first = true;
  while (!current().IsOperator(")")) {
    if (!first) {
      SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(","));
      if (current().IsOperator(")")) break;
    }
    first = false;
    if (SkipOperator("*")) {
      if (arguments.positional_rest != nullptr || arguments.named_rest != nullptr) {
        return invalid();
      }
      SIROCCO_CHAT_ASSIGN_OR_RETURN(arguments.positional_rest, ParseExpression());
    } else if (SkipOperator("**")) {
      if (arguments.named_rest != nullptr) return invalid();
      SIROCCO_CHAT_ASSIGN_OR_RETURN(arguments.named_rest, ParseExpression());
    } else if (current().Is(TokenType::kName) && next().IsOperator("=")) {
      if (arguments.named_rest != nullptr) return invalid();
      std::string name = current().text;
      Skip();
      Skip();
      SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      arguments.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!arguments.named.empty() || arguments.positional_rest != nullptr ||
          arguments.named_rest != nullptr) {
        return invalid();
      }
      SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      arguments.positional.push_back(std::move(value));
    }
  }
  Skip();
  return arguments;
}

}  // namespace sirocco::jinja
