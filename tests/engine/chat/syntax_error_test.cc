// Errors say the line and what is wrong.
#include <gtest/gtest.h>

#include <string>

#include "engine/chat/chat_template.h"
#include "tests/engine/chat/chat_testing.h"

namespace sirocco {
namespace {

struct Case {
  const char* source;
  absl::StatusCode code;
  const char* message;
};

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;

constexpr Case kParseErrors[] = {
    {"{{ 1 + }}", kInvalid, "chat template line 1: expected an expression, got '}}'"},
    {"a\n\n{{ 1 2 }}", kInvalid, "chat template line 3: expected '}}', got a number"},
    {"a\r\nb\r{{ ) }}", kInvalid, "chat template line 3: unexpected ')'"},
    {"{% if 1 %}\n{% endfor %}", kInvalid,
     "chat template line 2: Encountered unknown tag 'endfor'. The innermost open block waits for "
     "'elif' or 'else' or 'endif'."},
    {"{% for a in b %}\n\n", kInvalid,
     "chat template line 2: Unexpected end of template. The innermost open block waits for "
     "'endfor' or 'else'."},
    {"{# a\n", kInvalid, "chat template line 1: Missing end of comment tag"},
    {"\n{% raw %}\n", kInvalid, "chat template line 2: Missing end of raw directive"},
    {"\n{{ 'a\n", kInvalid, "chat template line 2: a string is not closed; it begins with '"},
    {"{{ '\\ud800' }}", kInvalid, "chat template line 1: an escape is no Unicode character"},
    {"{{ 99999999999999999999 }}", kInvalid,
     "chat template line 1: the integer 99999999999999999999 does not fit into 64 bits"},
    {"\n{{ a | nosuch }}", kInvalid, "chat template line 2: No filter named 'nosuch'."},
    {"\n{{ a is nosuch }}", kInvalid, "chat template line 2: No test named 'nosuch'."},
    {"{% continue %}", kInvalid, "chat template line 1: 'continue' outside of a loop"},
    {"{% for a in b %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", kInvalid,
     "chat template line 1: 'break' outside of a loop"},
    {"{% include 'x' %}", kUnimplemented,
     "chat template line 1: the tag 'include' is not supported"},
    {"\n{% block a %}{% endblock %}", kUnimplemented,
     "chat template line 2: the tag 'block' is not supported"},
    {"{% for a in b recursive %}{% endfor %}", kUnimplemented,
     "chat template line 1: a recursive loop is not supported"},
    {"{{ a | urlize }}", kUnimplemented,
     "chat template line 1: the filter 'urlize' is not supported"},
    {"{{ a[1, 2] }}", kUnimplemented,
     "chat template line 1: a subscript of several values is not supported"},
};

TEST(SyntaxErrorTest, ParsingNamesTheLine) {
  for (const Case& test_case : kParseErrors) {
    const auto parsed = ChatTemplate::Parse(test_case.source, "", "");
    EXPECT_EQ(parsed.status().code(), test_case.code) << test_case.source;
    EXPECT_EQ(std::string(parsed.status().message()), test_case.message);
  }
}

constexpr Case kRenderErrors[] = {
    {"a\n{{ b.c.d }}", kInvalid, "chat template line 2: 'b' is undefined"},
    {"{% for i in [1] %}\n  {% if i %}\n{{ i + 'x' }}{% endif %}{% endfor %}", kInvalid,
     "chat template line 3: unsupported operand type(s) for +: 'int' and 'str'"},
    {"{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ m() }}", kInvalid,
     "chat template line 2: division by zero"},
    {"\n{{ raise_exception('No, ' ~ 'never.') }}", kInvalid, "No, never."},
    {"{{ messages[0].role.upper.x() }}", kInvalid,
     "chat template line 1: list object has no element 0"},
    {"{% if 1 %}\n{{ 1 | nosuch }}{% endif %}", kInvalid,
     "chat template line 2: No filter named 'nosuch'."},
    {"{% if 1 %}\n{{ 1 | pprint }}{% endif %}", kUnimplemented,
     "chat template line 2: the filter 'pprint' is not supported"},
    {"\n{{ 'a'.encode() }}", kUnimplemented,
     "chat template line 2: the string method encode is not supported"},
    {"{{ cycler(1) }}", kUnimplemented,
     "chat template line 1: the function cycler() is not supported"},
    {"{{ [(1, 2)] | unique | list }}", kUnimplemented,
     "chat template line 1: unique of values of type 'tuple' is not supported: only of strings, "
     "numbers and none"},
};

TEST(SyntaxErrorTest, RenderingNamesTheLine) {
  for (const Case& test_case : kRenderErrors) {
    const auto rendered = Render(test_case.source);
    EXPECT_EQ(rendered.status().code(), test_case.code) << test_case.source;
    EXPECT_EQ(std::string(rendered.status().message()), test_case.message);
  }
}

TEST(SyntaxErrorTest, LongNamesAreShortened) {
  ChatInput input;
  input.kwargs = {{"name", std::string(1'000'000, 'x')}};
  const auto rendered = Render("{{ {}[name].y }}", input);
  EXPECT_LT(rendered.status().message().size(), 300u);
}

TEST(SyntaxErrorTest, SourceMustBeUtf8AndOfReasonableSize) {
  EXPECT_EQ(ChatTemplate::Parse("a\xFF", "", "").status().code(), kInvalid);
  EXPECT_EQ(ChatTemplate::Parse("a", "\xC0\x80", "").status().code(), kInvalid);
  EXPECT_EQ(ChatTemplate::Parse(std::string(2 << 20, 'x'), "", "").status().code(), kInvalid);
}

}  // namespace
}  // namespace sirocco
