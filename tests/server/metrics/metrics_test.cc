#include "server/metrics/metrics.h"

#include <gtest/gtest.h>

#include <thread>

#include "kernels/cpu/cpu_device.h"
#include "server/api/version.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

class MetricsTest : public testing::Test {
 protected:
  // The value of a series as it stands on the page, "" if there is none.
  std::string Value(const std::string& series) const {
    const std::string page = "\n" + metrics_.Render();
    const size_t at = page.find("\n" + series + " ");
    if (at == std::string::npos) return "";
    const size_t begin = at + series.size() + 2;
    return page.substr(begin, page.find('\n', begin) - begin);
  }

  FakeTokenizer tokenizer_;
  ModelFacts facts_ = FakeFacts(&tokenizer_);
  Metrics metrics_{/*vllm_names=*/true};
};

TEST_F(MetricsTest, SeriesStandAtZeroBeforeTheirFirstEvent) {
  metrics_.SetModel(facts_);
  for (const char* series :
       {"sirocco_requests_total{code=\"OK\",method=\"Generate\"}",
        "sirocco_requests_total{code=\"UNAUTHENTICATED\",method=\"GetModel\"}",
        "sirocco_requests_total{code=\"DEADLINE_EXCEEDED\",method=\"GenerateStream\"}",
        "sirocco_rejected_total{reason=\"queue_full\"}",
        "sirocco_rejected_total{reason=\"queue_tokens\"}",
        "sirocco_rejected_total{reason=\"deadline\"}",
        "sirocco_rejected_total{reason=\"kv\"}",
        "sirocco_rejected_total{reason=\"draining\"}",
        "sirocco_too_large_total{what=\"message\"}",
        "sirocco_too_large_total{what=\"metadata\"}",
        "sirocco_abuse_total{what=\"headers\"}",
        "sirocco_abuse_total{what=\"resets\"}",
        "sirocco_deadline_exceeded_total{stage=\"queue\"}",
        "sirocco_deadline_exceeded_total{stage=\"prefill\"}",
        "sirocco_deadline_exceeded_total{stage=\"decode\"}",
        "sirocco_tokens_total{phase=\"prefill\"}",
        "sirocco_tokens_total{phase=\"decode\"}",
        "sirocco_step_seconds_count{phase=\"prefill\"}",
        "sirocco_step_seconds_count{phase=\"decode\"}",
        "sirocco_batch_size_count",
        "sirocco_overrun_rows_total",
        "sirocco_cancel_to_free_seconds_count",
        "sirocco_kv_blocks{state=\"free\"}",
        "sirocco_kv_blocks{state=\"used\"}",
        "sirocco_kv_blocks{state=\"cached\"}",
        "sirocco_queue_requests",
        "sirocco_queue_tokens",
        "sirocco_last_step_timestamp_seconds",
        "vllm:num_requests_running{model_name=\"fake\"}",
        "vllm:num_requests_waiting{model_name=\"fake\"}",
        "vllm:kv_cache_usage_perc{model_name=\"fake\"}",
        "vllm:time_to_first_token_seconds_count{model_name=\"fake\"}",
        "vllm:inter_token_latency_seconds_count{model_name=\"fake\"}",
        "vllm:e2e_request_latency_seconds_count{model_name=\"fake\"}",
        "vllm:request_queue_time_seconds_count{model_name=\"fake\"}",
        "vllm:prompt_tokens_total{model_name=\"fake\"}",
        "vllm:generation_tokens_total{model_name=\"fake\"}",
        "vllm:request_success_total{finished_reason=\"stop\",model_name=\"fake\"}",
        "vllm:request_success_total{finished_reason=\"length\",model_name=\"fake\"}",
        "vllm:request_success_total{finished_reason=\"abort\",model_name=\"fake\"}"}) {
    EXPECT_EQ(Value(series), "0") << series;
  }
  EXPECT_EQ(Value(std::string("sirocco_build_info{backend=\"cpu\",dtype=\"float32\","
                              "mode=\"layer_graph\",version=\"") +
                  kVersion + "\"}"),
            "1");
}

TEST_F(MetricsTest, LatencyBucketsStartAtAQuarterOfAMillisecond) {
  metrics_.SetModel(facts_);
  metrics_.OnFirstToken(0.0002);
  metrics_.OnFirstToken(0.00025);  // a bucket's bound belongs to it
  metrics_.OnFirstToken(0.0003);
  const std::string bucket = "vllm:time_to_first_token_seconds_bucket{model_name=\"fake\",le=\"";
  EXPECT_EQ(Value(bucket + "0.00025\"}"), "2");
  EXPECT_EQ(Value(bucket + "0.0005\"}"), "3");
  EXPECT_EQ(Value(bucket + "+Inf\"}"), "3");
}

TEST_F(MetricsTest, EachEventMovesItsSeries) {
  metrics_.SetModel(facts_);
  metrics_.OnCall(RpcMethod::kGenerate, absl::StatusCode::kOk);
  metrics_.OnCall(RpcMethod::kGenerate, absl::StatusCode::kOk);
  metrics_.OnCall(RpcMethod::kDetokenize, absl::StatusCode::kNotFound);
  metrics_.OnGauges({.requests_running = 3,
                     .requests_waiting = 2,
                     .queue_tokens = 17,
                     .kv_blocks_used = 25,
                     .kv_blocks_free = 70,
                     .kv_blocks_cached = 5});
  metrics_.OnStep(StepPhase::kPrefill, 0.5, 100);
  metrics_.OnStep(StepPhase::kDecode, 0.25, 3);
  metrics_.OnPrefixCache(90, 48);
  metrics_.OnPreemptions(3);
  metrics_.OnOverrunRows(2);
  metrics_.OnQueueTime(0.125);
  metrics_.OnPromptTokens(100);
  metrics_.OnRejected("kv");
  metrics_.OnDeadlineExceeded(RequestStage::kPrefill);
  metrics_.OnCancelToFree(2);
  metrics_.OnFirstToken(0.5);
  metrics_.OnInterToken(0.25);
  metrics_.OnInterToken(0.25);
  metrics_.OnGeneratedTokens(3);
  metrics_.OnSequenceFinished(FinishReason::kStop);
  metrics_.OnRequestFinished(4);
  const struct {
    std::string series, value;
  } cases[] = {
      {"sirocco_requests_total{code=\"OK\",method=\"Generate\"}", "2"},
      {"sirocco_requests_total{code=\"NOT_FOUND\",method=\"Detokenize\"}", "1"},
      {"sirocco_requests_total{code=\"OK\",method=\"GenerateStream\"}", "0"},
      {"vllm:num_requests_running{model_name=\"fake\"}", "3"},
      {"vllm:num_requests_waiting{model_name=\"fake\"}", "2"},
      {"vllm:kv_cache_usage_perc{model_name=\"fake\"}", "0.25"},
      {"vllm:prefix_cache_queries_total{model_name=\"fake\"}", "90"},
      {"vllm:prefix_cache_hits_total{model_name=\"fake\"}", "48"},
      {"vllm:num_preemptions_total{model_name=\"fake\"}", "3"},
      {"sirocco_queue_requests", "2"},
      {"sirocco_queue_tokens", "17"},
      {"sirocco_kv_blocks{state=\"used\"}", "25"},
      {"sirocco_kv_blocks{state=\"free\"}", "70"},
      {"sirocco_kv_blocks{state=\"cached\"}", "5"},
      {"sirocco_tokens_total{phase=\"prefill\"}", "100"},
      {"sirocco_tokens_total{phase=\"decode\"}", "3"},
      {"sirocco_step_seconds_sum{phase=\"prefill\"}", "0.5"},
      {"sirocco_step_seconds_sum{phase=\"decode\"}", "0.25"},
      {"sirocco_batch_size_count", "1"},
      {"sirocco_batch_size_sum", "3"},
      {"vllm:request_queue_time_seconds_sum{model_name=\"fake\"}", "0.125"},
      {"vllm:prompt_tokens_total{model_name=\"fake\"}", "100"},
      {"vllm:generation_tokens_total{model_name=\"fake\"}", "3"},
      {"sirocco_rejected_total{reason=\"kv\"}", "1"},
      {"sirocco_deadline_exceeded_total{stage=\"prefill\"}", "1"},
      {"sirocco_cancel_to_free_seconds_sum", "2"},
      {"sirocco_overrun_rows_total", "2"},
      {"vllm:time_to_first_token_seconds_count{model_name=\"fake\"}", "1"},
      {"vllm:inter_token_latency_seconds_count{model_name=\"fake\"}", "2"},
      {"vllm:request_success_total{finished_reason=\"stop\",model_name=\"fake\"}", "1"},
      {"vllm:request_success_total{finished_reason=\"length\",model_name=\"fake\"}", "0"},
      {"vllm:e2e_request_latency_seconds_sum{model_name=\"fake\"}", "4"},
  };
  for (const auto& [series, value] : cases) EXPECT_EQ(Value(series), value) << series;
  const double last_step = std::stod(Value("sirocco_last_step_timestamp_seconds"));
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EXPECT_NEAR(last_step, now, 60);
}

TEST_F(MetricsTest, CountsStayExactBeyondAMillion) {
  metrics_.OnGeneratedTokens(1'234'567);
  metrics_.OnGeneratedTokens(2'000'000'000);
  EXPECT_EQ(std::stod(Value("sirocco_tokens_total{phase=\"decode\"}")), 2'001'234'567.0);
}

TEST_F(MetricsTest, WithoutVllmNames) {
  Metrics metrics(/*vllm_names=*/false);
  metrics.SetModel(facts_);
  metrics.OnGauges({});
  metrics.OnFirstToken(1);
  metrics.OnInterToken(1);
  metrics.OnQueueTime(1);
  metrics.OnPromptTokens(1);
  metrics.OnGeneratedTokens(1);
  metrics.OnSequenceFinished(FinishReason::kLength);
  metrics.OnRequestFinished(1);
  EXPECT_EQ(metrics.Render().find("vllm:"), std::string::npos);
}

TEST_F(MetricsTest, WhatTheModelCountsItselfIsReadWhenScraped) {
  ServedModel model;
  model.facts = facts_;
  model.load_seconds = 1.5;
  auto device = CreateCpuDevice(1);
  ASSERT_TRUE(device.ok()) << device.status();
  model.device = *std::move(device);
  const auto buffer = model.device->Allocate(4096, MemoryUse::kKv);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  auto engine = std::make_unique<FakeEngine>();
  auto& executor = const_cast<FakeExecutor&>(dynamic_cast<const FakeExecutor&>(engine->executor()));
  executor.options_.max_batch_size = 2;
  executor.stats_.plan_builds = 5;
  executor.stats_.graphs_captured = 2;
  executor.stats_.decode_allocations = 1;
  executor.stats_.replays[1] = 7;
  executor.stats_.capture_seconds = 0.5;
  executor.stats_.pack_seconds = 0.25;
  executor.stats_.kv_seconds = 0.125;
  executor.stats_.graph_pool_bytes = 1024;
  executor.stats_.prefill_graph_bytes = 512;
  executor.stats_.prefill_graphs = 3;
  executor.stats_.prefill_replays = 11;
  executor.stats_.prefill_launches = 4;
  executor.stats_.prefill_filling_rows = 99;
  model.engine = std::move(engine);

  EXPECT_EQ(Value("sirocco_plan_builds_total"), "");
  metrics_.Attach(model);
  const struct {
    std::string series, value;
  } cases[] = {
      {"sirocco_plan_builds_total", "5"},
      {"sirocco_graphs{state=\"captured\"}", "2"},
      {"sirocco_decode_allocations_total", "1"},
      {"sirocco_graph_replays_total{batch_size=\"1\"}", "7"},
      {"sirocco_graph_replays_total{batch_size=\"2\"}", "0"},
      {"sirocco_graph_replays_total{batch_size=\"3\"}", ""},
      {"sirocco_graph_capture_seconds", "0.5"},
      {"sirocco_graph_pool_bytes", "1536"},
      {"sirocco_prefill_graphs", "3"},
      {"sirocco_prefill_steps_total{issue=\"replayed\"}", "11"},
      {"sirocco_prefill_steps_total{issue=\"launched\"}", "4"},
      {"sirocco_prefill_filling_rows_total", "99"},
      {"sirocco_startup_seconds{phase=\"load\"}", "1.5"},
      {"sirocco_startup_seconds{phase=\"pack\"}", "0.25"},
      {"sirocco_startup_seconds{phase=\"capture\"}", "0.5"},
      {"sirocco_startup_seconds{phase=\"kv\"}", "0.125"},
      {"sirocco_memory_bytes{use=\"kv\"}", "4096"},
      {"sirocco_memory_bytes{use=\"weights\"}", "0"},
  };
  for (const auto& [series, value] : cases) EXPECT_EQ(Value(series), value) << series;
  executor.stats_.replays[1] = 8;
  EXPECT_EQ(Value("sirocco_graph_replays_total{batch_size=\"1\"}"), "8");
  metrics_.Detach();
  EXPECT_EQ(Value("sirocco_plan_builds_total"), "");
}

TEST_F(MetricsTest, NothingIsLostBetweenThreads) {
  metrics_.SetModel(facts_);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      for (int j = 0; j < 1000; ++j) {
        metrics_.OnGeneratedTokens(2);
        metrics_.OnInterToken(0.5);
        metrics_.OnCall(RpcMethod::kTokenize, absl::StatusCode::kOk);
      }
    });
  }
  while (metrics_.Render().empty()) {
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Value("vllm:generation_tokens_total{model_name=\"fake\"}"), "8000");
  EXPECT_EQ(Value("vllm:inter_token_latency_seconds_count{model_name=\"fake\"}"), "4000");
  EXPECT_EQ(Value("vllm:inter_token_latency_seconds_sum{model_name=\"fake\"}"), "2000");
  EXPECT_EQ(Value("sirocco_requests_total{code=\"OK\",method=\"Tokenize\"}"), "4000");
}

}  // namespace
}  // namespace sirocco
