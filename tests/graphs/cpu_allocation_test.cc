// A decode step on the CPU asks the host for no memory either, operations included.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "graphs/executor.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/graphs/schedule.h"
#include "tests/testing/random_model.h"

namespace {
std::atomic<uint64_t> host_allocations{0};
}  // namespace

void* operator new(size_t bytes) {
  ++host_allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace sirocco {
namespace {

class CpuAllocationTest : public ::testing::TestWithParam<Mode> {};

INSTANTIATE_TEST_SUITE_P(Modes, CpuAllocationTest, ::testing::ValuesIn(kAllModes),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

TEST_P(CpuAllocationTest, DecodeStepsOfEverySizeAllocateNothing) {
  absl::StatusOr<std::unique_ptr<Device>> device = CreateCpuDevice(3);
  ASSERT_TRUE(device.ok()) << device.status();
  absl::StatusOr<RandomModel> model = MakeRandomModel(**device, DType::kBFloat16, 5);
  ASSERT_TRUE(model.ok()) << model.status();
  ExecutorOptions options;
  options.mode = GetParam();
  options.max_batch_size = 9;
  options.max_length = 400;
  options.prefill_chunk_size = 16;
  options.kv_blocks = {300, 300};
  options.kv_dtype = DType::kBFloat16;
  auto executor = Executor::Create(**device, model->descriptor, model->weights, options);
  ASSERT_TRUE(executor.ok()) << executor.status();

  // Sampling of every kind; the prompts' blocks are there for all that follows.
  const std::vector<TestSequence> sequences = RandomSequences(9, 131, 2);
  RandomBlocks blocks(options, 1);
  std::vector<BlockUpdate> updates;
  for (int32_t lane = 0; lane < 9; ++lane) {
    blocks.Grow(lane, 400, updates);
    LaneStart start;
    start.lane = lane;
    start.tokens = std::span<const int32_t>(sequences[lane].prompt).first(1);
    start.state = sequences[lane].params;
    start.state.length = start.prompt_length = 1;
    ASSERT_TRUE((*executor)->StartLane(start).ok());
  }
  std::vector<int32_t> lanes = {8, 0, 7, 1, 6, 2, 5, 3, 4};
  // Applies the updates; what an operation sets up at its first use is set up here.
  ASSERT_TRUE((*executor)->Decode({.block_updates = updates, .lanes = lanes}).ok());

  const uint64_t before = host_allocations;
  const uint64_t on_device = (*device)->counters().allocations;
  bool ok = true;
  for (int step = 0; step < 350; ++step) {  // past one split of the attention
    const size_t rows = 1 + step % lanes.size();
    ok &= (*executor)->Decode({.lanes = std::span<const int32_t>(lanes).first(rows)}).ok();
  }
  EXPECT_EQ(host_allocations, before);
  EXPECT_TRUE(ok);
  EXPECT_EQ((*device)->counters().allocations, on_device);
  EXPECT_EQ((*executor)->stats().decode_allocations, 0u);
}

}  // namespace
}  // namespace sirocco
