// A model with sliding windows, from its files to its answers, in no more KV blocks than its
// windows need: sequences much longer than those go on in the blocks that the window has passed.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/block_budget.h"
#include "engine/engine.h"
#include "engine/model/model_files.h"
#include "engine/sequence_blocks.h"
#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/engine/client.h"
#include "tests/engine/counting_observer.h"
#include "tests/graphs/deferring_device.h"
#include "tests/testing/golden.h"
#include "tests/testing/paths.h"
#include "tests/testing/tolerance.h"

namespace sirocco {
namespace {

constexpr int32_t kGreedy = 32;

class WindowTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> cpu = CreateCpuDevice(1);
    ASSERT_TRUE(cpu.ok()) << cpu.status();
    device_ = *std::move(cpu);
    if (GetParam()) {
      device_ = std::make_unique<DeferringDevice>(std::move(device_),
                                                  DeferringDevice::Pace::kWhenWaitedFor, 1);
    }
    absl::StatusOr<ModelFiles> files = OpenModel(GoldenPath("gemma3"));
    ASSERT_TRUE(files.ok()) << files.status();
    files_ = *std::move(files);
    absl::StatusOr<ModelWeights> weights = LoadWeights(files_, DType::kFloat32, *device_, nullptr);
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
    absl::StatusOr<Golden> golden = ReadGolden(GoldenPath("gemma3/expected.safetensors"));
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
  }

  void Start() {
    ExecutorOptions options;
    options.mode = Mode::kDecoderGraph;
    options.max_batch_size = 3;
    options.max_length = 112;
    options.prefill_chunk_size = 10;
    options.block_size = 4;
    const absl::StatusOr<std::vector<int32_t>> blocks =
        PlanKvBlocks(files_.descriptor, options, uint64_t{1} << 40);
    ASSERT_TRUE(blocks.ok()) << blocks.status();
    ASSERT_EQ(*blocks, (std::vector<int32_t>{3 * 28, 3 * 8}));  // a window of 16, a chunk of 10
    options.kv_blocks = *blocks;
    auto executor = Executor::Create(*device_, files_.descriptor, weights_, options);
    ASSERT_TRUE(executor.ok()) << executor.status();
    auto engine = Engine::Start(
        *std::move(executor), /*tokenizer=*/nullptr, &observer_,
        {.prefill_chunk_size = options.prefill_chunk_size, .groups = files_.descriptor.groups});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  std::unique_ptr<Device> device_;
  ModelFiles files_;
  ModelWeights weights_;
  Golden golden_;
  CountingObserver observer_;
  std::unique_ptr<Engine> engine_;
};

INSTANTIATE_TEST_SUITE_P(RunsAhead, WindowTest, ::testing::Bool());

TEST_P(WindowTest, AnswersAreTheReferences) {
  ASSERT_NO_FATAL_FAILURE(Start());
  // Twice, so that blocks come from sequences that have used them in turn.
  for (int round = 0; round < 2; ++round) {
    std::vector<std::unique_ptr<Client>> clients;
    for (const std::vector<int32_t>& prompt : golden_.prompts) {
      Request request;
      request.prompt = prompt;
      request.max_new_tokens = kGreedy;
      request.sampling.temperature = 0;
      request.stop.ignore_eos = true;
      auto client = Client::Submit(*engine_, request);
      ASSERT_TRUE(client.ok()) << client.status();
      clients.push_back(*std::move(client));
    }
    for (size_t i = 0; i < clients.size(); ++i) {
      ASSERT_TRUE(clients[i]->Wait());
      const Client::Output output = clients[i]->output();
      ASSERT_TRUE(output.end.status.ok()) << output.end.status;
      const std::vector<int32_t>& ids = output.sequences.at(0).token_ids;
      ASSERT_EQ(ids.size(), static_cast<size_t>(kGreedy));
      for (int32_t step = 0; step < kGreedy && golden_.margins[i][step] >= kGreedyMargin; ++step) {
        ASSERT_EQ(ids[step], golden_.greedy[i][step]) << "prompt " << i << " step " << step;
      }
    }
  }
}

}  // namespace
}  // namespace sirocco
