// Plots: ticks, places, and that a page needs and can be harmed by nothing.
#include "server/bench/plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>
#include <string>
#include <vector>

namespace sirocco {
namespace {

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

void ExpectTicks(const std::vector<double>& ticks, const std::vector<double>& expected) {
  ASSERT_EQ(ticks.size(), expected.size());
  for (size_t i = 0; i < ticks.size(); ++i) EXPECT_NEAR(ticks[i], expected[i], 1e-9 * expected[i]);
}

Plot TwoLines() {
  Plot plot;
  plot.title = "Title";
  plot.x_label = "s";
  plot.y_label = "ms";
  plot.series = {{"one", {{0, 10}, {5, 20}, {10, 5}}}, {"two", {{0, 1}, {10, 2}}}};
  return plot;
}

TEST(PlotTest, LinearTicksAreRound) {
  ExpectTicks(LinearTicks(0, 10, 5), {0, 2, 4, 6, 8, 10});
  ExpectTicks(LinearTicks(0, 0.7, 5), {0, 0.2, 0.4, 0.6});
  ExpectTicks(LinearTicks(0, 23000, 5), {0, 5000, 10000, 15000, 20000});
  EXPECT_FALSE(std::signbit(LinearTicks(0, 10, 5)[0]));
}

TEST(PlotTest, LogarithmicTicksAreFewOverManyDecades) {
  ExpectTicks(LogarithmicTicks(0.9, 60), {1, 2, 5, 10, 20, 50});
  ExpectTicks(LogarithmicTicks(0.9, 20000), {1, 10, 100, 1000, 10000});
  ExpectTicks(LogarithmicTicks(3, 6), {5});
}

TEST(PlotTest, ALineRunsFromTheFirstPointToTheLastWithinTheAxes) {
  const std::string svg = Svg(TwoLines());
  const std::regex line(
      "class=\"line c0\" d=\"M([0-9.]+) ([0-9.]+)L([0-9.]+) ([0-9.]+)L([0-9.]+) "
      "([0-9.]+)\"");
  std::smatch match;
  ASSERT_TRUE(std::regex_search(svg, match, line)) << svg;
  const auto at = [&](int i) { return std::stod(match[i]); };
  EXPECT_LT(at(1), at(3));
  EXPECT_LT(at(3), at(5));
  EXPECT_LT(at(4), at(2));  // 20 stands higher than 10
  EXPECT_LT(at(2), at(6));
  EXPECT_EQ(Count(svg, "<circle"), 0);
  EXPECT_NE(svg.find(">one</text>"), std::string::npos);
  EXPECT_NE(svg.find(">two</text>"), std::string::npos);
}

TEST(PlotTest, ALogarithmicAxisBetweenRoundNumbersHasTicksToo) {
  Plot plot = TwoLines();
  plot.logarithmic_y = true;
  plot.series = {{"one", {{0, 13}, {10, 15}}}};
  EXPECT_NE(Svg(plot).find(">14</text>"), std::string::npos) << Svg(plot);
}

TEST(PlotTest, MarkersSayTheirValues) {
  Plot plot = TwoLines();
  plot.markers = true;
  const std::string svg = Svg(plot);
  EXPECT_EQ(Count(svg, "<circle"), 5);
  EXPECT_NE(svg.find("<title>one: 5, 20</title>"), std::string::npos);
}

TEST(PlotTest, WhatAnAxisCannotShowIsLeftOut) {
  Plot plot = TwoLines();
  plot.markers = true;
  plot.logarithmic_y = true;
  plot.series[0].points.emplace_back(11, 0);
  plot.series[0].points.emplace_back(12, std::numeric_limits<double>::infinity());
  plot.series[0].points.emplace_back(13, std::nan(""));
  const std::string svg = Svg(plot);
  EXPECT_EQ(Count(svg, "<circle"), 5);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(PlotTest, ASinglePointAndNoneAreDrawnToo) {
  for (const bool logarithmic : {false, true}) {
    Plot plot;
    plot.logarithmic_y = logarithmic;
    plot.markers = true;
    EXPECT_NE(Svg(plot).find("no samples"), std::string::npos);
    for (const double x : {0.0, 7.0}) {
      plot.series = {{"one", {{x, 3}}}};
      const std::string svg = Svg(plot);
      EXPECT_EQ(Count(svg, "<circle"), 1);
      EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
      EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
    }
  }
}

TEST(PlotTest, WhatIsOutsideOfTheWindowIsShaded) {
  Plot plot = TwoLines();
  EXPECT_EQ(Count(Svg(plot), "\"outside\""), 0);
  plot.x_window = {2, 8};
  EXPECT_EQ(Count(Svg(plot), "\"outside\""), 2);
  plot.x_window = {0, 8};
  EXPECT_EQ(Count(Svg(plot), "\"outside\""), 1);
}

TEST(PlotTest, NamesAreTextAndNothingElse) {
  EXPECT_EQ(EscapeHtml("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
  Plot plot = TwoLines();
  plot.title = plot.x_label = plot.y_label = plot.series[0].name = "<script>";
  EXPECT_EQ(HtmlPage("<script>", Svg(plot)).find("<script"), std::string::npos);
}

}  // namespace
}  // namespace sirocco
