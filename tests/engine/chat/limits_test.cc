// Whatever a template does, rendering ends within the limits, with an error that names the limit.
#include <gtest/gtest.h>

#include <string>

#include "engine/chat/chat_template.h"
#include "tests/engine/chat/chat_testing.h"

namespace sirocco {
namespace {

constexpr char kSteps[] = "max_steps";
constexpr char kMemory[] = "max_memory_bytes";
constexpr char kDepth[] = "max_depth";
constexpr char kOutput[] = "max_output_bytes";

// Small enough that every case ends at once, under sanitizers too.
ChatLimits SmallLimits() {
  ChatLimits limits;
  limits.max_steps = 300'000;
  limits.max_memory_bytes = 8u << 20;
  limits.max_output_bytes = 1u << 20;
  return limits;
}

struct Case {
  const char* source;
  const char* limit;
};

constexpr Case kHostile[] = {
    // Text that grows.
    {"{{ 'x' * 10**7 }}", kMemory},
    {"{{ 'x' * 10**12 }}", kMemory},
    {"{{ [1] * 10**12 }}", kMemory},
    {"{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
     kMemory},
    {"{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s.replace('x', 'xx') %}"
     "{% endfor %}",
     kSteps},
    {"{% set n = namespace(l=[1]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}",
     kMemory},
    {"{{ 'x' | center(10**15) }}", kMemory},
    {"{{ 'x'.zfill(10**15) }}", kMemory},
    {"{{ ('\\t' * 100).expandtabs(10**15) }}", kMemory},
    {"{{ 'a\\nb' | indent(10**9) }}", kMemory},
    {"{{ [1] | tojson(indent=10**9) }}", kMemory},
    {"{{ range(100000) | join('x' * 1000) }}", kMemory},
    {"{{ '%99999999d' % 1 }}", kMemory},
    {"{{ '{:99999999}'.format(1) }}", kMemory},
    {"{{ ('a,' * 1000000).split(',') | length }}", kMemory},
    {"{{ ('a' * 1000000) | list | length }}", kMemory},
    // Provenance takes memory and time too.
    {"{{ ('<' ~ messages ~ '>') * 190000 }}", kMemory},
    {"{% set s = ('<' ~ messages ~ '>') * 10000 %}{% for i in range(100000) %}{% set t = s ~ i %}"
     "{% endfor %}",
     kSteps},
    // Output.
    {"{% for i in range(1000) %}{{ 'x' * 10000 }}{% endfor %}", kOutput},
    // Time.
    {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", kSteps},
    {"{% set s = 'é' * 500000 %}{% for i in range(100000) %}{{ s[i] }}{% endfor %}", kSteps},
    {"{% set s = 'a' * 500000 %}{% for i in range(100000) %}{{ s.find('b') }}{% endfor %}", kSteps},
    {"{% set s = 'a' * 500000 %}{% set p = 'a' * 1000 ~ 'b' %}{% for i in range(100000) %}"
     "{{ p in s }}{% endfor %}",
     kSteps},
    {"{% set s = 'x' * 100000 %}{{ (s ~ 'y') | trim(s) }}", kSteps},
    {"{% set s = 'x' * 100000 %}{{ (s ~ 'y').strip(s) }}", kSteps},
    // Nesting.
    {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", kDepth},
    {"{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}", kDepth},
    {"{% macro f(a) %}{% for i in [1] %}{% if 1 %}{{ ((f(a) | upper) ~ 'x') }}{% endif %}"
     "{% endfor %}{% endmacro %}{{ f(1) }}",
     kDepth},
    {"{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% endfor %}",
     kDepth},
    {"{% set n = namespace(l={}) %}{% for i in range(9999) %}{% set n.l = {1: n.l} %}{% endfor %}",
     kDepth},
    {"{% set n = namespace(l={}) %}{% for i in range(9999) %}{% set n.l = {1: n.l}.items() %}"
     "{% endfor %}",
     kDepth},
    {"{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] | map('list') %}"
     "{% endfor %}",
     kDepth},
};

TEST(LimitsTest, HostileTemplatesMeetALimit) {
  for (const Case& test_case : kHostile) {
    const auto rendered = Render(test_case.source, {}, SmallLimits());
    ASSERT_FALSE(rendered.ok()) << test_case.source;
    EXPECT_EQ(rendered.status().code(), absl::StatusCode::kResourceExhausted)
        << test_case.source << "\n"
        << rendered.status();
    EXPECT_NE(rendered.status().message().find(test_case.limit), absl::string_view::npos)
        << test_case.source << "\n"
        << rendered.status();
  }
}

// A value that holds itself twice on every level: walking it takes 2^100 steps.
TEST(LimitsTest, SharedPartsAreNotWalkedForever) {
  const std::string build =
      "{% set n = namespace(v=(1,)) %}{% for i in range(100) %}{% set n.v = (n.v, n.v) %}"
      "{% endfor %}";
  for (const char* use : {"{{ n.v == n.v[:] }}", "{{ n.v < n.v[:] }}", "{{ n.v in [n.v[:]] }}",
                          "{{ [n.v, n.v[:]] | sort | length }}", "{{ (n.v | tojson) | length }}",
                          "{{ (n.v | string) | length }}", "{{ n.v is eq n.v[:] }}"}) {
    const auto rendered = Render(build + use, {}, SmallLimits());
    EXPECT_EQ(rendered.status().code(), absl::StatusCode::kResourceExhausted) << use;
  }
}

std::string Repeated(const std::string& text, int times) {
  std::string repeated;
  for (int i = 0; i < times; ++i) repeated += text;
  return repeated;
}

TEST(LimitsTest, DeepTemplatesAreSyntaxErrors) {
  constexpr int kDeep = 50'000;
  for (const std::string& source :
       {"{{ " + Repeated("(", kDeep) + "1" + Repeated(")", kDeep) + " }}",
        "{{ " + Repeated("[", kDeep) + Repeated("]", kDeep) + " }}",
        "{{ " + Repeated("{1:", kDeep) + "1" + Repeated("}", kDeep) + " }}",
        "{{ " + Repeated("not ", kDeep) + "1 }}", "{{ " + Repeated("-", kDeep) + "1 }}",
        "{{ a" + Repeated("[a", kDeep) + Repeated("]", kDeep) + " }}",
        "{{ 1" + Repeated(" if 1 else 1", kDeep) + " }}", "{{ 1" + Repeated(" if 1", kDeep) + " }}",
        Repeated("{% if 1 %}", kDeep),
        "{% for " + Repeated("(", kDeep) + "a" + Repeated(")", kDeep) + " in b %}{% endfor %}"}) {
    const auto parsed = ChatTemplate::Parse(source, "", "");
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << source.substr(0, 30);
  }
}

TEST(LimitsTest, LongTemplatesAreFlat) {
  constexpr int kLong = 20'000;
  EXPECT_EQ(RenderedText("{{ 0" + Repeated("+1", kLong) + " }}"), "20000");
  EXPECT_EQ(RenderedText("{{ 'a'" + Repeated("|upper", kLong) + " }}"), "A");
  EXPECT_EQ(RenderedText("{{ 1" + Repeated(" and 1", kLong) + " }}"), "1");
  EXPECT_EQ(RenderedText("{% if 0 %}" + Repeated("{% elif 0 %}", kLong) + "{% else %}x{% endif %}"),
            "x");
}

TEST(LimitsTest, ExtremeIntegersAreErrorsOrRight) {
  const std::string least = "(-9223372036854775807 - 1)";
  EXPECT_EQ(RenderedText("{{ " + least + " % -1 }}"), "0");
  EXPECT_EQ(RenderedText("{{ 1 ** 9223372036854775807 }}"), "1");
  EXPECT_EQ(RenderedText("{{ 'abc'[-9223372036854775807:9223372036854775807:3] }}"), "a");
  EXPECT_EQ(RenderedText("{{ 'abc'[::" + least + "] }}"), "c");
  EXPECT_EQ(RenderedText("{{ range(" + least + ", 9223372036854775807, 2**62) | list | length }}"),
            "4");
  EXPECT_EQ(RenderedText("{{ '' * 10**18 }}{{ 'x' * " + least + " }}"), "");
  for (const std::string& overflow :
       {std::string("9223372036854775807 + 1"), "-" + least, least + " // -1", least + " | abs",
        std::string("10 ** 19"), std::string("9223372036854775807 * 2"),
        std::string("9223372036854775807 | round(-1)"), std::string("1e30 | int"),
        std::string("'99999999999999999999' | int")}) {
    const auto rendered = Render("{{ " + overflow + " }}");
    EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument) << overflow;
    EXPECT_NE(rendered.status().message().find("64 bits"), absl::string_view::npos) << overflow;
  }
}

TEST(LimitsTest, DeepInputIsRefused) {
  OrderedJson deep = OrderedJson::array();
  for (int i = 0; i < 1000; ++i) deep = OrderedJson::array({std::move(deep)});
  ChatInput input;
  input.messages = std::move(deep);
  const auto rendered = Render("{{ messages }}", input);
  EXPECT_EQ(rendered.status().code(), absl::StatusCode::kResourceExhausted);
  // Not looked at where the template does not.
  EXPECT_EQ(RenderedText("x", input), "x");
}

TEST(LimitsTest, MemoryIsGivenBack) {
  // 200 MB in all, 1 MB at a time.
  ChatLimits limits;
  limits.max_memory_bytes = 8u << 20;
  const auto rendered =
      Render("{% for i in range(200) %}{% set s = 'x' * 1000000 %}{% endfor %}ok", {}, limits);
  ASSERT_TRUE(rendered.ok()) << rendered.status();
  EXPECT_EQ(rendered->text, "ok");
}

// Values that hold each other are freed: the leak checker tells.
TEST(LimitsTest, NamespacesMayHoldThemselves) {
  EXPECT_EQ(RenderedText("{% set n = namespace() %}{% set n.n = n %}{% set n.l = [n] %}"
                         "{{ n.n.n.l[0] == n }}"),
            "True");
  EXPECT_EQ(RenderedText("{% set n = namespace() %}{% for i in [1, 2] %}{% set n.loop = loop %}"
                         "{% macro m() %}{{ i }}{% endmacro %}{% set n.m = m %}{% endfor %}"
                         "{{ n.loop.length }}{{ n.loop.previtem }}{{ n.m() }}"),
            "22");
}

TEST(LimitsTest, ALongConversationFitsTheDefaults) {
  ChatInput input;
  for (int i = 0; i < 2000; ++i) {
    input.messages.push_back(
        {{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", std::string(3000, 'a')}});
  }
  for (const char* name : {"chatml", "gemma3", "qwen3_thinking", "llama31_tools", "harmony"}) {
    const auto rendered =
        Render(ReadGolden(std::string("chat/templates/") + name + ".jinja"), input);
    ASSERT_TRUE(rendered.ok()) << name << ": " << rendered.status();
    EXPECT_GT(rendered->text.size(), 6'000'000u);
  }
}

}  // namespace
}  // namespace sirocco
