#include "engine/chat/parser.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/chat/filters.h"
#include "engine/chat/parser_internal.h"
#include "engine/chat/status_macros.h"

namespace sirocco::jinja {
namespace {

std::string Quoted(std::string_view text) { return absl::StrCat("'", std::string(text), "'"); }

std::string Describe(const Token& token) {
  switch (token.type) {
    case TokenType::kData:
      return "template text";
    case TokenType::kBlockBegin:
      return "'{%'";
    case TokenType::kBlockEnd:
      return "'%}'";
    case TokenType::kVariableBegin:
      return "'{{'";
    case TokenType::kVariableEnd:
      return "'}}'";
    case TokenType::kName:
    case TokenType::kOperator:
      return Quoted(token.text);
    case TokenType::kString:
      return "a string";
    case TokenType::kInteger:
    case TokenType::kFloat:
      return "a number";
    case TokenType::kEnd:
      return "the end of the template";
  }
  return "a token";
}

// Tags of jinja2 that are left out.
constexpr std::string_view kUnsupportedTags[] = {"autoescape", "block",  "extends",
                                                 "from",       "import", "include"};

}  // namespace

Parser::Parser(std::vector<Token> tokens)
    : tokens_(std::move(tokens)), template_(std::make_unique<Template>()) {
  for (const char* name : {"loop", "caller", "varargs", "kwargs"}) Intern(name);
}

absl::Status Parser::Fail(std::string_view message) const {
  return SyntaxError(current().line, message);
}

absl::Status Parser::Unsupported(std::string_view what) const {
  return absl::UnimplementedError(absl::StrCat("chat template line ", current().line, ": ",
                                               std::string(what), " is not supported"));
}

absl::Status Parser::Unexpected(std::string_view expected) const {
  return Fail(absl::StrCat("expected ", std::string(expected), ", got ", Describe(current())));
}

bool Parser::SkipOperator(std::string_view op) {
  if (!current().IsOperator(op)) return false;
  Skip();
  return true;
}

bool Parser::SkipName(std::string_view name) {
  if (!current().IsName(name)) return false;
  Skip();
  return true;
}

absl::Status Parser::Expect(TokenType type, std::string_view what) {
  if (!current().Is(type)) return Unexpected(what);
  Skip();
  return absl::OkStatus();
}

absl::Status Parser::ExpectOperator(std::string_view op) {
  return SkipOperator(op) ? absl::OkStatus() : Unexpected(Quoted(op));
}

absl::StatusOr<std::string> Parser::ExpectName() {
  if (!current().Is(TokenType::kName)) return Unexpected("a name");
  std::string name = current().text;
  Skip();
  return name;
}

NameId Parser::Intern(const std::string& name) {
  const auto [found, added] = ids_.try_emplace(name, static_cast<NameId>(ids_.size()));
  if (added) {
    template_->names.push_back(name);
    template_->globals.push_back(FindGlobal(name));
  }
  return found->second;
}

absl::Status Parser::Nesting::Check() const {
  if (parser_.nesting_ <= kMaxNesting) return absl::OkStatus();
  return parser_.Fail(absl::StrCat("nested deeper than ", kMaxNesting, " levels"));
}

absl::StatusOr<Block> Parser::ParseBlock(EndTags ends) {
  const Nesting nesting(this);
  SIROCCO_CHAT_RETURN_IF_ERROR(nesting.Check());
  Block block;
  while (!current().Is(TokenType::kEnd)) {
    Statement statement;
    statement.line = current().line;
    if (current().Is(TokenType::kData)) {
      statement.node = TextStatement{Text(current().text, /*trusted=*/true)};
      Skip();
    } else if (current().Is(TokenType::kVariableBegin)) {
      Skip();
      OutputStatement output;
      SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseTuple(true, false));
      output.values.push_back(std::move(value));
      statement.node = std::move(output);
      SIROCCO_CHAT_RETURN_IF_ERROR(Expect(TokenType::kVariableEnd, "'}}'"));
    } else {
      SIROCCO_CHAT_RETURN_IF_ERROR(Expect(TokenType::kBlockBegin, "a tag"));
      const bool is_end = current().Is(TokenType::kName) &&
                          std::find(ends.begin(), ends.end(), current().text) != ends.end();
      if (is_end) return block;
      if (!current().Is(TokenType::kName)) return Fail("tag name expected");
      absl::StatusOr<Statement> parsed = ParseStatement();
      if (!parsed.ok()) return parsed.status();
      // A known tag leaves its line; an unknown one has no statement.
      if (std::holds_alternative<TextStatement>(parsed->node)) {
        return UnknownTag(current().text, ends);
      }
      statement = *std::move(parsed);
      SIROCCO_CHAT_RETURN_IF_ERROR(Expect(TokenType::kBlockEnd, "'%}'"));
    }
    block.push_back(std::move(statement));
  }
  if (ends.size() == 0) return block;
  return UnknownTag("", ends);
}

// A tag that does not belong here, or (without a name) the end of the template.
absl::Status Parser::UnknownTag(std::string_view name, EndTags ends) const {
  std::string message = name.empty() ? "Unexpected end of template."
                                     : absl::StrCat("Encountered unknown tag ", Quoted(name), ".");
  if (ends.size() > 0) {
    std::string wanted;
    for (const std::string_view end : ends) {
      absl::StrAppend(&wanted, wanted.empty() ? "" : " or ", Quoted(end));
    }
    absl::StrAppend(&message, " The innermost open block waits for ", wanted, ".");
  }
  return Fail(message);
}

absl::StatusOr<Block> Parser::ParseBody(EndTags ends) {
  SkipOperator(":");
  SIROCCO_CHAT_RETURN_IF_ERROR(Expect(TokenType::kBlockEnd, "'%}'"));
  return ParseBlock(ends);
}

absl::StatusOr<Block> Parser::ParseBodyTo(std::string_view end) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Block body, ParseBody({end}));
  Skip();
  return body;
}

// A TextStatement where the tag is unknown, which then is current still.
absl::StatusOr<Statement> Parser::ParseStatement() {
  struct Tag {
    std::string_view name;
    absl::Status (Parser::*parse)(Statement*);
  };
  static constexpr Tag kTags[] = {
      {"break", &Parser::ParseLoopControl},
      {"call", &Parser::ParseCallBlock},
      {"continue", &Parser::ParseLoopControl},
      {"filter", &Parser::ParseFilterBlock},
      {"for", &Parser::ParseFor},
      {"generation", &Parser::ParseGeneration},
      {"if", &Parser::ParseIf},
      {"macro", &Parser::ParseMacro},
      {"print", &Parser::ParsePrint},
      {"set", &Parser::ParseSet},
      {"with", &Parser::ParseWith},
  };
  Statement statement;
  statement.line = current().line;
  const std::string_view name = current().text;
  if (std::find(std::begin(kUnsupportedTags), std::end(kUnsupportedTags), name) !=
      std::end(kUnsupportedTags)) {
    return Unsupported(absl::StrCat("the tag ", Quoted(name)));
  }
  const Tag* tag = std::find_if(std::begin(kTags), std::end(kTags),
                                [&](const Tag& candidate) { return candidate.name == name; });
  if (tag == std::end(kTags)) return statement;
  SIROCCO_CHAT_RETURN_IF_ERROR((this->*tag->parse)(&statement));
  return statement;
}

absl::Status Parser::ParseIf(Statement* statement) {
  IfStatement node;
  ++conditional_;
  bool more = true;
  while (more) {
    Skip();  // if, elif
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr test, ParseTuple(false, false));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Block body, ParseBody({"elif", "else", "endif"}));
    node.branches.emplace_back(std::move(test), std::move(body));
    more = current().IsName("elif");
  }
  if (SkipName("else")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(node.otherwise, ParseBodyTo("endif"));
  } else {
    Skip();  // endif
  }
  --conditional_;
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::Status Parser::ParseFor(Statement* statement) {
  Skip();
  ForStatement node;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.target, ParseTarget(false));
  if (!SkipName("in")) return Unexpected("'in'");
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.sequence, ParseTuple(false, false));
  if (SkipName("if")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(node.filter, ParseExpression());
  }
  if (current().IsName("recursive")) return Unsupported("a recursive loop");
  const int uses = uses_[kLoopName];
  ++loops_;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.body, ParseBody({"endfor", "else"}));
  --loops_;
  node.uses_loop = uses_[kLoopName] != uses;
  if (SkipName("else")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(node.otherwise, ParseBodyTo("endfor"));
  } else {
    Skip();  // endfor
  }
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::Status Parser::ParseLoopControl(Statement* statement) {
  if (loops_ == 0) return Fail(absl::StrCat(Quoted(current().text), " outside of a loop"));
  if (current().IsName("break")) {
    statement->node = BreakStatement{};
  } else {
    statement->node = ContinueStatement{};
  }
  Skip();
  return absl::OkStatus();
}

absl::StatusOr<Target> Parser::ParseTargetPart(bool with_attributes) {
  const Nesting nesting(this);
  SIROCCO_CHAT_RETURN_IF_ERROR(nesting.Check());
  if (SkipOperator("(")) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Target target, ParseTarget(with_attributes));
    SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(")"));
    return target;
  }
  Target target;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const std::string name, ExpectName());
  for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) return Fail(absl::StrCat("can't assign to ", Quoted(name)));
  }
  target.name = Intern(name);
  if (with_attributes && SkipOperator(".")) {
    target.form = Target::Form::kAttribute;
    SIROCCO_CHAT_ASSIGN_OR_RETURN(target.attribute, ExpectName());
  }
  return target;
}

absl::StatusOr<Target> Parser::ParseTarget(bool with_attributes) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Target first, ParseTargetPart(with_attributes));
  if (!current().IsOperator(",")) return first;
  Target tuple;
  tuple.form = Target::Form::kTuple;
  tuple.parts.push_back(std::move(first));
  while (SkipOperator(",")) {
    if (AtTupleEnd() || current().IsName("in") || current().IsOperator("=")) break;
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Target part, ParseTargetPart(with_attributes));
    tuple.parts.push_back(std::move(part));
  }
  return tuple;
}

absl::Status Parser::ParseSet(Statement* statement) {
  Skip();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Target target, ParseTarget(true));
  if (SkipOperator("=")) {
    SetStatement node;
    node.target = std::move(target);
    SIROCCO_CHAT_ASSIGN_OR_RETURN(node.value, ParseTuple(true, false));
    statement->node = std::move(node);
    return absl::OkStatus();
  }
  SetBlockStatement node;
  node.target = std::move(target);
  SIROCCO_CHAT_RETURN_IF_ERROR(ParseFilters(&node.filters));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.body, ParseBodyTo("endset"));
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::Status Parser::ParseSignature(MacroStatement* macro) {
  SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator("("));
  while (!current().IsOperator(")")) {
    if (!macro->parameters.empty()) SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(","));
    MacroStatement::Parameter parameter;
    SIROCCO_CHAT_ASSIGN_OR_RETURN(parameter.name, ExpectName());
    parameter.name_id = Intern(parameter.name);
    if (SkipOperator("=")) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(parameter.absent, ParseExpression());
    } else if (!macro->parameters.empty() && macro->parameters.back().absent != nullptr) {
      return Fail("non-default argument follows default argument");
    }
    macro->takes_caller = macro->takes_caller || parameter.name_id == kCallerName;
    macro->parameters.push_back(std::move(parameter));
  }
  Skip();
  return absl::OkStatus();
}

absl::Status Parser::ParseMacroBody(MacroStatement* macro, std::string_view end) {
  const std::array<int, kSpecialNames> uses = uses_;
  const int loops = std::exchange(loops_, 0);
  SIROCCO_CHAT_ASSIGN_OR_RETURN(macro->body, ParseBodyTo(end));
  loops_ = loops;
  macro->uses_caller = uses_[kCallerName] != uses[kCallerName];
  macro->uses_varargs = uses_[kVarargsName] != uses[kVarargsName];
  macro->uses_kwargs = uses_[kKwargsName] != uses[kKwargsName];
  return absl::OkStatus();
}

absl::Status Parser::ParseMacro(Statement* statement) {
  Skip();
  MacroStatement node;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.name, ExpectName());
  node.name_id = Intern(node.name);
  SIROCCO_CHAT_RETURN_IF_ERROR(ParseSignature(&node));
  SIROCCO_CHAT_RETURN_IF_ERROR(ParseMacroBody(&node, "endmacro"));
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::Status Parser::ParseCallBlock(Statement* statement) {
  Skip();
  CallBlockStatement node;
  node.caller.name = "caller";
  if (current().IsOperator("(")) {
    SIROCCO_CHAT_RETURN_IF_ERROR(ParseSignature(&node.caller));
  }
  // callee(arguments): the steps of the callee, less the call that ends them.
  const int line = current().line;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr primary, ParsePrimary());
  std::vector<PostfixStep> steps;
  SIROCCO_CHAT_RETURN_IF_ERROR(ParsePostfix(&steps));
  CallStep* call = steps.empty() ? nullptr : std::get_if<CallStep>(&steps.back().step);
  if (call == nullptr) return SyntaxError(line, "expected call");
  node.arguments = std::move(call->arguments);
  steps.pop_back();
  node.callee = steps.empty() ? std::move(primary)
                              : Make(line, Postfix{std::move(primary), std::move(steps)});
  SIROCCO_CHAT_RETURN_IF_ERROR(ParseMacroBody(&node.caller, "endcall"));
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::Status Parser::ParseFilterBlock(Statement* statement) {
  Skip();
  FilterBlockStatement node;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(PostfixStep first, ParseFilter());
  node.filters.push_back(std::move(first));
  SIROCCO_CHAT_RETURN_IF_ERROR(ParseFilters(&node.filters));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.body, ParseBodyTo("endfilter"));
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::Status Parser::ParseWith(Statement* statement) {
  Skip();
  WithStatement node;
  while (!current().Is(TokenType::kBlockEnd)) {
    if (!node.variables.empty()) SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(","));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Target target, ParseTargetPart(false));
    SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator("="));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    node.variables.emplace_back(std::move(target), std::move(value));
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.body, ParseBodyTo("endwith"));
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::Status Parser::ParsePrint(Statement* statement) {
  Skip();
  OutputStatement node;
  while (!current().Is(TokenType::kBlockEnd)) {
    if (!node.values.empty()) SIROCCO_CHAT_RETURN_IF_ERROR(ExpectOperator(","));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    node.values.push_back(std::move(value));
  }
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::Status Parser::ParseGeneration(Statement* statement) {
  Skip();
  GenerationStatement node;
  const int loops = std::exchange(loops_, 0);
  SIROCCO_CHAT_ASSIGN_OR_RETURN(node.body, ParseBodyTo("endgeneration"));
  loops_ = loops;
  statement->node = std::move(node);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<const Template>> Parser::Run() {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(template_->body, ParseBlock({}));
  SIROCCO_CHAT_RETURN_IF_ERROR(unknown_);
  return std::move(template_);
}

absl::StatusOr<std::unique_ptr<const Template>> ParseTemplate(std::string_view source) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace sirocco::jinja
