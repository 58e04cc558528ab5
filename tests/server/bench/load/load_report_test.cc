// A load as people and programs read it.
#include "server/bench/load/load_report.h"

#include <gtest/gtest.h>

#include <string>

#include "server/bench/load/level_run.h"
#include "tests/server/bench/load/made_up_server.h"

namespace sirocco {
namespace {

LoadLevel Measured(double rate, bool failures) {
  MadeUpServer server;
  if (failures) {
    server.status = [](uint64_t index) {
      return index % 2 == 0 ? absl::ResourceExhaustedError("full") : absl::OkStatus();
    };
  }
  LevelPlan plan;
  plan.load.rate = rate;
  plan.warm_up = 1;
  plan.seconds = 10;
  plan.outputs = Lengths(6);
  return LevelRun(plan, server, server).Run({}).value();
}

LoadReport Report() {
  LoadReport report;
  report.address = "host:1";
  report.model = "<a model>";
  report.backend = "cpu";
  report.device = "a device";
  report.mode = "decoder_graph";
  report.dtype = "bfloat16";
  LoadOptions& options = report.options;
  options.prompts = *Lengths::Parse("uniform:2:9", 1);
  options.outputs = Lengths(6);
  options.goals = *ParseGoals("ttft_p99=500ms");
  options.goals_text = "ttft_p99=500ms";
  options.loads.emplace_back();
  options.loads.back().rate = 20;
  report.levels.push_back(Measured(20, false));
  report.levels.push_back(Measured(40, true));
  report.highest_kept = 20;
  report.lowest_missed = 40;
  return report;
}

TEST(LoadReportTest, TheTableHasARowALevelAndWhatWasFound) {
  const std::string table = LoadTable(Report());
  EXPECT_NE(table.find("prompts of uniform:2:9 tokens, outputs of 6"), std::string::npos) << table;
  EXPECT_NE(table.find("     20/s "), std::string::npos) << table;
  EXPECT_NE(table.find("     40/s "), std::string::npos) << table;
  EXPECT_NE(table.find("20 requests/s keep ttft_p99=500ms; 40 do not"), std::string::npos);
  EXPECT_NE(table.find("the first that failed at 40/s: full"), std::string::npos) << table;
}

TEST(LoadReportTest, TheFiguresAreThoseOfTheLevels) {
  const LoadReport report = Report();
  const nlohmann::ordered_json json = LoadJson(report);
  EXPECT_EQ(json["loop"], "open");
  EXPECT_EQ(json["prompt_length"], "uniform:2:9");
  EXPECT_EQ(json["output_length"], 6);
  EXPECT_EQ(json["goal"]["highest_kept_rate"], 20);
  ASSERT_EQ(json["levels"].size(), 2);
  const auto& first = json["levels"][0];
  EXPECT_EQ(first["rate"], 20);
  EXPECT_EQ(first["requests"], report.levels[0].requests);
  EXPECT_EQ(first["failed"], nlohmann::ordered_json::object());
  EXPECT_EQ(first["seconds"], 10);
  EXPECT_NEAR(first["first_token_seconds"]["p99"], 0.01, 0.0001);
  EXPECT_EQ(first["first_token_seconds"]["samples"], report.levels[0].requests);
  EXPECT_TRUE(first["keeps_goal"].get<bool>());
  EXPECT_EQ(first["timeline"]["tokens"].size(), report.levels[0].timeline.bins());
  EXPECT_FALSE(json["levels"][1]["keeps_goal"].get<bool>());
  EXPECT_GT(json["levels"][1]["failed"]["RESOURCE_EXHAUSTED"], 100);
}

TEST(LoadReportTest, ASearchWithoutAResultSaysSo) {
  LoadReport report = Report();
  report.highest_kept.reset();
  report.lowest_missed = 1.25;
  EXPECT_EQ(SearchResult(report), "no rate down to 1.25/s keeps ttft_p99=500ms");
  EXPECT_TRUE(LoadJson(report)["goal"]["highest_kept_rate"].is_null());
  report.options.goals.clear();
  EXPECT_EQ(SearchResult(report), "");
  EXPECT_FALSE(LoadJson(report).contains("goal"));
}

TEST(LoadReportTest, AClosedLoopHasNoRate) {
  LoadReport report = Report();
  MadeUpServer server;
  LevelPlan plan;
  plan.load.concurrency = 3;
  plan.requests = 9;
  report.options.loads = {plan.load};
  report.options.goals.clear();
  report.levels = {LevelRun(plan, server, server).Run({}).value()};
  const nlohmann::ordered_json json = LoadJson(report);
  EXPECT_EQ(json["loop"], "closed");
  EXPECT_EQ(json["levels"][0]["concurrency"], 3);
  EXPECT_FALSE(json["levels"][0].contains("rate"));
  EXPECT_GT(json["levels"][0]["decode_tokens_per_second"], 0);
  EXPECT_NE(LoadTable(report).find("batch 3"), std::string::npos);
}

TEST(LoadReportTest, ThePageNeedsNoOther) {
  const std::string page = LoadPage(Report());
  size_t plots = 0;
  for (size_t at = page.find("<svg"); at != std::string::npos; at = page.find("<svg", at + 1)) {
    ++plots;
  }
  EXPECT_EQ(plots, 4 + 2 * 3);  // of all levels, and three timelines a level
  for (const std::string part : {"http", "<script", "src=", "href=", "url(", "<a model>", "nan"}) {
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  }
  EXPECT_NE(page.find("&lt;a model&gt;"), std::string::npos);
  EXPECT_NE(page.find("20 requests/s keep"), std::string::npos);
}

}  // namespace
}  // namespace sirocco
