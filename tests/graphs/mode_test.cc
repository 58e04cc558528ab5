#include "graphs/mode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ModeTest, VariablesChooseAMode) {
  const struct {
    std::optional<std::string> compile, mode;
    Mode expected;
    const char* name;
    bool graphs;
  } kCases[] = {
      {std::nullopt, std::nullopt, Mode::kEager, "eager", false},
      {"0", std::nullopt, Mode::kEager, "eager", false},
      {"0", "0", Mode::kEager, "eager", false},
      {std::nullopt, "3", Mode::kEager, "eager", false},
      {"1", std::nullopt, Mode::kLayerGraph, "layer_graph", true},
      {"1", "0", Mode::kDecoderGraph, "decoder_graph", true},
      {"1", "1", Mode::kDecoder, "decoder", false},
      {"1", "2", Mode::kLayerGraph, "layer_graph", true},
      {"1", "3", Mode::kLayer, "layer", false},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.compile.value_or("unset") + " " + c.mode.value_or("unset"));
    const absl::StatusOr<Mode> mode = ModeFromVariables(c.compile, c.mode);
    ASSERT_TRUE(mode.ok()) << mode.status();
    EXPECT_EQ(*mode, c.expected);
    EXPECT_EQ(NameOf(*mode), c.name);
    EXPECT_EQ(UsesGraphs(*mode), c.graphs);
  }
}

TEST(ModeTest, AnyOtherValueIsRefusedByName) {
  for (const char* value : {"", "2", "-1", "00", "01", " 1", "1 ", "true", "yes", "1\n"}) {
    const absl::StatusOr<Mode> mode = ModeFromVariables(value, "1");
    ASSERT_FALSE(mode.ok()) << value;
    EXPECT_EQ(mode.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(mode.status().message()),
                AllOf(HasSubstr("EOLE_TORCH_COMPILE"), HasSubstr("\"" + std::string(value) + "\""),
                      HasSubstr("0 and 1")));
  }
  for (const char* value : {"", "4", "-1", "00", " 2", "max-autotune", "9"}) {
    for (const char* compile : {"0", "1"}) {  // eager too
      const absl::StatusOr<Mode> mode = ModeFromVariables(compile, value);
      ASSERT_FALSE(mode.ok()) << value;
      EXPECT_EQ(mode.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(mode.status().message()),
                  AllOf(HasSubstr("EOLE_COMPILE_MODE"), HasSubstr("\"" + std::string(value) + "\""),
                        HasSubstr("0, 1, 2 and 3")));
    }
  }
}

}  // namespace
}  // namespace sirocco
