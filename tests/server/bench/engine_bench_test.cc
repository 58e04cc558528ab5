// The whole of `sirocco bench --engine` but its flags, on the CPU.
#include "server/bench/engine_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "server/bench/bench_report.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A folder with only a config.json.
std::string BareFolder() {
  const std::string folder = ::testing::TempDir();
  std::ifstream in(GoldenPath("llama_tied/config.json"));
  std::ofstream(folder + "/config.json") << in.rdbuf();
  return folder;
}

struct Asked {
  Config config;
  BenchOptions options;
  Asked() {
    config.model = BareFolder();
    config.backend = "cpu";
    config.threads = 2;
    config.log_level = "error";
    options.random_weights = true;
    options.batches = {1, 3};
    options.modes = {Mode::kEager, Mode::kDecoderGraph};
    options.measure = {.prompt_length = 20, .output_length = 5, .repeat = 2};
    options.stages = true;
  }
  absl::StatusOr<BenchReport> Run() const {
    return BenchEngine(config, options, [](std::string_view, uint64_t, uint64_t) {});
  }
};

TEST(EngineBenchTest, MeasuresEveryModeAndBatch) {
  const auto report = Asked().Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->backend, "cpu");
  EXPECT_EQ(report->dtypes.weights, DType::kBFloat16);
  EXPECT_GT(report->measured_stream, 0);
  EXPECT_GT(report->parameters, 100'000u);
  EXPECT_EQ(report->weight_bytes / 2 / 1000, report->parameters / 1000);
  ASSERT_EQ(report->modes.size(), 2u);
  for (const ModeReport& mode : report->modes) {
    ASSERT_EQ(mode.batches.size(), 2u);
    EXPECT_EQ(mode.batches[1].batch, 3);
    ASSERT_EQ(mode.stages.size(), 2u);
    EXPECT_FALSE(mode.stages[1].stages.decode.empty());
  }
}

TEST(EngineBenchTest, ReportsForPeopleAndPrograms) {
  const auto report = Asked().Run();
  ASSERT_TRUE(report.ok()) << report.status();
  const std::string text = BenchTables(*report);
  EXPECT_THAT(text, AllOf(HasSubstr("decoder_graph"), HasSubstr("GB/s"),
                          HasSubstr("eager, batch 3, a decode step"), HasSubstr("norm_qkv"),
                          HasSubstr(": 3 graphs,"), HasSubstr("launch ms")));
  const auto json = BenchJson(*report);
  ASSERT_EQ(json["modes"].size(), 2u);
  const auto& batch = json["modes"][1]["batches"][0];
  EXPECT_EQ(json["modes"][1]["mode"], "decoder_graph");
  EXPECT_EQ(json["modes"][0]["graphs"], 0);
  EXPECT_EQ(json["modes"][1]["graphs"], 3);  // up to the largest batch
  EXPECT_GT(json["modes"][1]["capture_seconds"], 0);
  EXPECT_EQ(batch["batch"], 1);
  EXPECT_EQ(batch["decode_steps"], 4);
  EXPECT_EQ(batch["prefill_steps"], 1);
  for (const char* figure : {"device_prefill_seconds", "launch_prefill_seconds",
                             "device_decode_seconds", "launch_decode_seconds"}) {
    EXPECT_GT(batch[figure].get<double>(), 0) << figure;
  }
  EXPECT_NEAR(batch["share"].get<double>() * json["stream"].get<double>() *
                  batch["step_seconds"].get<double>(),
              batch["floor_bytes"].get<double>(), 1);
}

TEST(EngineBenchTest, ModesWithOnePlanHaveTheSameStages) {
  Asked setup;
  setup.options.modes = {Mode::kDecoder, Mode::kDecoderGraph};
  const auto report = setup.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  const auto json = BenchJson(*report)["modes"];
  ASSERT_EQ(json[0]["stages"].size(), 2u);
  EXPECT_EQ(json[0]["stages"], json[1]["stages"]);  // to the nanosecond: timed once
}

TEST(EngineBenchTest, RealWeightsNeedTheirFiles) {
  Asked setup;
  setup.options.random_weights = false;
  EXPECT_EQ(setup.Run().status().code(), absl::StatusCode::kNotFound);
  setup.config.model = GoldenPath("llama_tied");
  setup.options.stages = false;
  const auto report = setup.Run();
  EXPECT_TRUE(report.ok()) << report.status();
}

TEST(EngineBenchTest, WhatCannotBeIsSaid) {
  Asked longer;
  longer.options.measure.prompt_length = 5000;
  EXPECT_THAT(std::string(longer.Run().status().message()),
              AllOf(HasSubstr("5005 tokens"), HasSubstr("512")));
  Asked small;
  small.config.kv_cache_memory = 20 * 1024;
  EXPECT_EQ(small.Run().status().code(), absl::StatusCode::kResourceExhausted);
  Asked nowhere;
  nowhere.config.model = "/nowhere";
  EXPECT_EQ(nowhere.Run().status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sirocco
