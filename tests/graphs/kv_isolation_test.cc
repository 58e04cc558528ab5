// A decode step writes one slot of each layer's k and v in the row's own blocks, and nothing else
// of the KV cache.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graphs/executor.h"
#include "graphs/layer_params.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/forwarding_device.h"
#include "tests/graphs/schedule.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

// The CPU device, telling where the KV cache lies.
class WatchedDevice final : public ForwardingDevice {
 public:
  explicit WatchedDevice(Device& device) : ForwardingDevice(device) {}

  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) override {
    absl::StatusOr<std::unique_ptr<Reservation>> range = ForwardingDevice::Reserve(bytes, use);
    if (range.ok()) kv.push_back({static_cast<std::byte*>((*range)->data()), bytes});
    return range;
  }

  std::vector<std::vector<std::byte>> Snapshot() const {
    std::vector<std::vector<std::byte>> copy;
    for (const auto& [data, bytes] : kv) copy.emplace_back(data, data + bytes);
    return copy;
  }

  std::vector<std::pair<std::byte*, size_t>> kv;  // by layer group
};

ExecutorOptions OptionsOf(Mode mode) {
  ExecutorOptions options;
  options.mode = mode;
  options.max_batch_size = 3;
  options.max_length = 40;
  options.prefill_chunk_size = 40;
  options.block_size = 4;
  options.kv_blocks = {40, 33};
  return options;
}

class KvIsolationTest : public ::testing::TestWithParam<Mode> {};

INSTANTIATE_TEST_SUITE_P(Modes, KvIsolationTest, ::testing::ValuesIn(kAllModes),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

TEST_P(KvIsolationTest, AStepWritesItsOwnSlotsOnly) {
  absl::StatusOr<std::unique_ptr<Device>> cpu = CreateCpuDevice(2);
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  WatchedDevice device(**cpu);
  absl::StatusOr<RandomModel> model = MakeRandomModel(device, DType::kFloat32, 5);
  ASSERT_TRUE(model.ok()) << model.status();
  const ExecutorOptions options = OptionsOf(GetParam());
  auto executor = Executor::Create(device, model->descriptor, model->weights, options);
  ASSERT_TRUE(executor.ok()) << executor.status();
  ASSERT_EQ(device.kv.size(), 2u);

  RandomBlocks blocks(options, 8);
  std::vector<BlockUpdate> updates;
  std::vector<PrefillChunk> chunks;
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3, 4, 5, 6, 7}, {8, 9}, {10, 11, 12}};
  for (int32_t lane = 0; lane < 3; ++lane) {
    LaneStart start;
    start.lane = lane;
    start.state.length = start.prompt_length = static_cast<int32_t>(prompts[lane].size());
    start.tokens = prompts[lane];
    ASSERT_TRUE((*executor)->StartLane(start).ok());
    blocks.Grow(lane, start.state.length + 1, updates);
    chunks.push_back({.lane = lane, .count = start.state.length, .sample = true});
  }
  ASSERT_TRUE((*executor)->Prefill({.block_updates = updates, .chunks = chunks}).ok());

  std::vector<std::vector<std::byte>> expected = device.Snapshot();
  const std::vector<int32_t> lanes = {2, 0};
  ASSERT_TRUE((*executor)->Decode({.lanes = lanes}).ok());
  const std::vector<std::vector<std::byte>> after = device.Snapshot();

  // The slots that these rows own may differ, and do; with them taken over, nothing else does.
  const std::vector<KvLayer> layers =
      MakeKvLayers(model->descriptor, options.block_size, options.kv_dtype,
                   {expected[0].data(), expected[1].data()});
  int changed = 0;
  for (const KvLayer& kv : layers) {
    for (const int32_t lane : lanes) {
      const int32_t position = static_cast<int32_t>(prompts[lane].size());
      const int32_t block = blocks.Table(lane, kv.group)[position / kv.block_size];
      for (int32_t head = 0; head < 2 * kv.kv_heads; ++head) {
        const bool value = head >= kv.kv_heads;
        const int64_t offset =
            block * kv.block_stride + (value ? kv.value_offset : 0) +
            (int64_t{head % kv.kv_heads} * kv.block_size + position % kv.block_size) * kv.head_dim;
        std::byte* slot = static_cast<std::byte*>(kv.data) + offset * sizeof(float);
        const std::byte* now = after[kv.group].data() + (slot - expected[kv.group].data());
        const size_t bytes = kv.head_dim * sizeof(float);
        changed += std::memcmp(slot, now, bytes) != 0;
        std::memcpy(slot, now, bytes);
      }
    }
  }
  EXPECT_EQ(changed, 3 * 2 * 2 * 2);  // layers, rows, heads, k and v
  EXPECT_EQ(after, expected);
}

// What fills a prefill step up is written behind all blocks that sequences can have.
TEST_P(KvIsolationTest, AFilledPrefillWritesItsOwnBlocksAndTheFillingOnes) {
  absl::StatusOr<std::unique_ptr<Device>> cpu = CreateCpuDevice(2);
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  WatchedDevice device(**cpu);
  absl::StatusOr<RandomModel> model = MakeRandomModel(device, DType::kFloat32, 5);
  ASSERT_TRUE(model.ok()) << model.status();
  ExecutorOptions options = OptionsOf(GetParam());
  options.fill_prefill = true;
  auto executor = Executor::Create(device, model->descriptor, model->weights, options);
  ASSERT_TRUE(executor.ok()) << executor.status();
  const std::vector<int32_t> tokens = {1, 2, 3, 4};
  LaneStart start;
  start.lane = 1;
  start.state.length = start.prompt_length = 4;
  start.tokens = tokens;
  ASSERT_TRUE((*executor)->StartLane(start).ok());
  constexpr int32_t kBlock = 7;
  const std::vector<BlockUpdate> updates = {{1, 0, 0, kBlock}, {1, 1, 0, kBlock}};
  const std::vector<PrefillChunk> chunks = {{.lane = 1, .count = 4, .sample = true}};
  const std::vector<std::vector<std::byte>> before = device.Snapshot();
  ASSERT_TRUE((*executor)->Prefill({.block_updates = updates, .chunks = chunks}).ok());
  const std::vector<std::vector<std::byte>> after = device.Snapshot();
  for (size_t g = 0; g < 2; ++g) {
    const int64_t block_bytes =
        KvBlockBytes(model->descriptor, static_cast<int>(g), options.block_size, options.kv_dtype);
    const auto changed = [&](int64_t block) {
      return std::memcmp(before[g].data() + block * block_bytes,
                         after[g].data() + block * block_bytes, block_bytes) != 0;
    };
    const int64_t blocks = static_cast<int64_t>(after[g].size()) / block_bytes;
    // 31 rows fill up at most, 28 of them here.
    const int64_t filling = GetParam() == Mode::kEager ? 0 : 8;
    ASSERT_EQ(blocks, options.kv_blocks[g] + filling);
    for (int64_t block = 0; block < blocks; ++block) {
      const bool filled = block >= options.kv_blocks[g] && block < options.kv_blocks[g] + 7;
      EXPECT_EQ(changed(block), block == kBlock || filled) << "block " << block;
    }
  }
}

}  // namespace
}  // namespace sirocco
