// The parser, in two files: statements (parser.cc) and expressions (expression_parser.cc).
#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/chat/ast.h"
#include "engine/chat/lexer.h"

namespace sirocco::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens);
  absl::StatusOr<std::unique_ptr<const Template>> Run();

 private:
  using ExpressionOr = absl::StatusOr<ExpressionPtr>;
  // The names of the tags that may end a block.
  using EndTags = std::initializer_list<std::string_view>;

  // --- tokens ---
  const Token& current() const { return tokens_[position_]; }
  const Token& next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  void Skip() { position_ = std::min(position_ + 1, tokens_.size() - 1); }
  bool SkipOperator(std::string_view op);
  bool SkipName(std::string_view name);
  absl::Status Expect(TokenType type, std::string_view what);
  absl::Status ExpectOperator(std::string_view op);
  absl::StatusOr<std::string> ExpectName();
  absl::Status Unexpected(std::string_view expected) const;
  absl::Status Fail(std::string_view message) const;
  absl::Status Unsupported(std::string_view what) const;

  NameId Intern(const std::string& name);

  // Counts levels of nesting for as long as it lives.
  class Nesting {
   public:
    explicit Nesting(Parser* parser) : parser_(*parser) { ++parser_.nesting_; }
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    absl::Status Check() const;

   private:
    Parser& parser_;
  };

  // --- statements ---
  // Up to one of `ends` (whose name is then current) or the end of the template where there are
  // none.
  absl::StatusOr<Block> ParseBlock(EndTags ends);
  // The rest of the tag, a block, and the end tag's name.
  absl::StatusOr<Block> ParseBody(EndTags ends);
  absl::StatusOr<Block> ParseBodyTo(std::string_view end);
  absl::StatusOr<Statement> ParseStatement();
  absl::Status ParseIf(Statement* statement);
  absl::Status ParseFor(Statement* statement);
  absl::Status ParseSet(Statement* statement);
  absl::Status ParseMacro(Statement* statement);
  absl::Status ParseCallBlock(Statement* statement);
  absl::Status ParseFilterBlock(Statement* statement);
  absl::Status ParseWith(Statement* statement);
  absl::Status ParsePrint(Statement* statement);
  absl::Status ParseGeneration(Statement* statement);
  absl::Status ParseLoopControl(Statement* statement);
  absl::Status ParseSignature(MacroStatement* macro);
  absl::Status ParseMacroBody(MacroStatement* macro, std::string_view end);
  absl::StatusOr<Target> ParseTarget(bool with_attributes);
  absl::StatusOr<Target> ParseTargetPart(bool with_attributes);
  absl::Status UnknownTag(std::string_view name, EndTags ends) const;

  // --- expressions ---
  ExpressionOr ParseExpression();
  ExpressionOr ParseTuple(bool with_conditional, bool parenthesized);
  ExpressionOr ParseOr();
  ExpressionOr ParseAnd();
  ExpressionOr ParseNot();
  ExpressionOr ParseComparison();
  ExpressionOr ParseSum();
  ExpressionOr ParseConcatenation();
  ExpressionOr ParseProduct();
  ExpressionOr ParsePower();
  ExpressionOr ParseUnary(bool with_filters);
  ExpressionOr ParsePrimary();
  ExpressionOr ParseLiteralName(const Token& token);
  ExpressionOr ParseList();
  ExpressionOr ParseDict();
  absl::Status ParsePostfix(std::vector<PostfixStep>* steps);
  absl::Status ParseFiltersAndTests(std::vector<PostfixStep>* steps);
  absl::Status ParseFilters(std::vector<PostfixStep>* steps);
  absl::StatusOr<PostfixStep> ParseFilter();
  absl::StatusOr<PostfixStep> ParseTest();
  absl::StatusOr<PostfixStep> ParseCall();
  absl::StatusOr<PostfixStep> ParseSubscript();
  absl::StatusOr<Arguments> ParseArguments();
  std::optional<Comparison> TakeComparison();
  template <typename Next>
  ExpressionOr ParseArithmetic(
      std::initializer_list<std::pair<std::string_view, BinaryOperator>> operators,
      const Next& next_level);
  bool AtTupleEnd() const;
  // A filter or test that is not there: an error, unless a condition keeps it from being reached.
  void NoteUnknown(int line, const absl::Status& error);

  template <typename Node>
  ExpressionPtr Make(int line, Node node) {
    auto expression = std::make_unique<Expression>();
    expression->line = line;
    expression->node = std::move(node);
    return expression;
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
  std::unique_ptr<Template> template_;
  absl::flat_hash_map<std::string, NameId> ids_;
  // How often each special variable was read up to here.
  std::array<int, kSpecialNames> uses_{};
  int nesting_ = 0;
  int loops_ = 0;         // around, within the same macro
  int conditional_ = 0;   // around: what is unknown in there may never be reached
  absl::Status unknown_;  // the first unknown filter or test elsewhere
};

}  // namespace sirocco::jinja
