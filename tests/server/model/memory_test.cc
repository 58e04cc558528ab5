// The plan of a device's memory: what it counts, what it leaves for the KV cache, what it refuses.
#include "server/model/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/model/model_files.h"
#include "graphs/prefill_sizes.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/testing/random_model.h"

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kMebibyte = uint64_t{1} << 20;
constexpr uint64_t kGibibyte = uint64_t{1} << 30;

class MemoryTest : public ::testing::Test {
 protected:
  MemoryTest() {
    options_.max_batch_size = 4;
    options_.max_length = 256;
    options_.kv_dtype = DType::kBFloat16;
  }

  MemoryRequest Request() const {
    return {.descriptor = descriptor_,
            .weights = DType::kBFloat16,
            .options = options_,
            .kv_bytes = kv_bytes_,
            .fraction = fraction_};
  }
  absl::StatusOr<MemoryTable> On(const std::string& backend, uint64_t free, uint64_t total) const {
    return PlanDeviceMemory(Request(), {backend, free, total});
  }
  std::string Refusal(const std::string& backend, uint64_t free, uint64_t total) const {
    const absl::Status status = On(backend, free, total).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);  // exit status 1
    EXPECT_EQ(status.message().find('\n'), status.message().npos);
    return std::string(status.message());
  }
  // Of one block in every group.
  uint64_t BlockBytes() const {
    uint64_t bytes = 0;
    for (size_t g = 0; g < descriptor_.groups.size(); ++g) {
      bytes +=
          KvBlockBytes(descriptor_, static_cast<int>(g), options_.block_size, options_.kv_dtype);
    }
    return bytes;
  }

  const ModelDescriptor descriptor_ = RandomModelDescriptor();
  ExecutorOptions options_;
  std::optional<int64_t> kv_bytes_;
  double fraction_ = 0.9;
};

uint64_t BytesOfUse(const MemoryTable& table, const std::string& prefix) {
  uint64_t sum = 0;
  for (const MemoryTable::Row& row : table.rows) {
    if (row.use.compare(0, prefix.size(), prefix) == 0) sum += row.bytes;
  }
  return sum;
}

TEST_F(MemoryTest, PlentyGivesWhatAllLanesNeed) {
  for (const char* backend : {"cpu", "cuda"}) {
    const auto table = On(backend, 16 * kGibibyte, 16 * kGibibyte);
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_EQ(table->kv_blocks, std::vector<int32_t>(2, 4 * 256 / 16));
    EXPECT_EQ(BytesOfUse(*table, "kv, "), 64 * BlockBytes());
    EXPECT_EQ(BytesOfUse(*table, "weights"), WeightBytes(descriptor_, DType::kBFloat16));
    EXPECT_GT(BytesOfUse(*table, "workspace"), 0u);
    EXPECT_GT(BytesOfUse(*table, "lanes"), 0u);
    EXPECT_LE(table->Planned(), table->allowed);
  }
}

TEST_F(MemoryTest, EachLayerGroupHasItsRow) {
  const auto table = On("cpu", 16 * kGibibyte, 16 * kGibibyte);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_GT(BytesOfUse(*table, "kv, full attention"), 0u);
  EXPECT_GT(BytesOfUse(*table, "kv, window 24"), 0u);
  // Two layers of three are in the first group.
  EXPECT_EQ(BytesOfUse(*table, "kv, full attention"), 2 * BytesOfUse(*table, "kv, window 24"));
  EXPECT_EQ(table->Lines().size(), table->rows.size() + 1);
}

// Heads of 16 with a scale each: 17 bytes in place of 32.
TEST_F(MemoryTest, InFloat8TheSameMemoryHoldsNearlyTwiceTheBlocks) {
  kv_bytes_ = static_cast<int64_t>(17 * BlockBytes());
  const auto bfloat16 = On("cuda", 16 * kGibibyte, 16 * kGibibyte);
  ASSERT_TRUE(bfloat16.ok()) << bfloat16.status();
  EXPECT_EQ(bfloat16->kv_blocks, std::vector<int32_t>(2, 17));
  options_.kv_dtype = DType::kFloat8;
  const auto float8 = On("cuda", 16 * kGibibyte, 16 * kGibibyte);
  ASSERT_TRUE(float8.ok()) << float8.status();
  EXPECT_EQ(float8->kv_blocks, std::vector<int32_t>(2, 32));
  EXPECT_EQ(BytesOfUse(*float8, "kv, "), BytesOfUse(*bfloat16, "kv, "));
  EXPECT_THAT(float8->Lines(), ::testing::Contains(HasSubstr("32 blocks of 16 slots, fp8")));
}

TEST_F(MemoryTest, AWindowsGroupHasWhatTheWindowNeeds) {
  options_.max_length = 1024;
  options_.prefill_chunk_size = 64;
  const auto table = On("cpu", 16 * kGibibyte, 16 * kGibibyte);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->kv_blocks, (std::vector<int32_t>{4 * 64, 4 * 7}));
}

TEST_F(MemoryTest, OnCudaTheCacheTakesWhatIsLeftOfTheFraction) {
  options_.max_batch_size = 512;
  options_.max_length = 1024;
  const auto plenty = On("cuda", 64 * kGibibyte, 64 * kGibibyte);
  ASSERT_TRUE(plenty.ok()) << plenty.status();
  const uint64_t fixed = plenty->Planned() - BytesOfUse(*plenty, "kv, ");
  // Room for a hundred blocks and a half.
  const uint64_t total = kGibibyte;
  fraction_ = static_cast<double>(fixed + 100 * BlockBytes() + BlockBytes() / 2) / total;
  const auto table = On("cuda", total, total);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->kv_blocks, std::vector<int32_t>(2, 100));
  EXPECT_LE(table->Planned(), table->allowed);
}

TEST_F(MemoryTest, WhatOthersHaveTakenCountsInTheFraction) {
  const uint64_t total = 10 * kGibibyte;
  const auto table = On("cuda", total - kGibibyte, total);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_NEAR(static_cast<double>(table->allowed), 8.0 * kGibibyte, 1.0 * kMebibyte);
  // More than the fraction is gone already.
  EXPECT_THAT(Refusal("cuda", kGibibyte / 2, total), HasSubstr("allowed are 0.0 MiB"));
}

TEST_F(MemoryTest, OnTheCpuTheCacheTakesAQuarterOfWhatIsFree) {
  options_.max_batch_size = 512;
  options_.max_length = 1024;
  const uint64_t free = kGibibyte / 2;  // a quarter is less than all lanes need
  const auto table = On("cpu", free, 64 * kGibibyte);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->allowed, free);
  EXPECT_LE(BytesOfUse(*table, "kv, "), free / 4);
  EXPECT_GT(BytesOfUse(*table, "kv, "), free / 4 - BlockBytes());
}

TEST_F(MemoryTest, WhatWasAskedForTheCacheIsTaken) {
  kv_bytes_ = static_cast<int64_t>(20 * BlockBytes());
  const auto table = On("cuda", 16 * kGibibyte, 16 * kGibibyte);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->kv_blocks, std::vector<int32_t>(2, 20));
  kv_bytes_ = 1024;
  EXPECT_THAT(Refusal("cuda", 16 * kGibibyte, 16 * kGibibyte),
              AllOf(HasSubstr("1024 bytes are allowed"), HasSubstr("raise kv_cache_memory")));
}

TEST_F(MemoryTest, WhatCannotFitIsRefusedWithFiguresAndAdvice) {
  const std::string cuda = Refusal("cuda", 20 * kMebibyte, 24 * kMebibyte);
  EXPECT_THAT(cuda, AllOf(HasSubstr("does not fit"), HasSubstr("weights "), HasSubstr("lanes "),
                          HasSubstr("memory_fraction 0.9 of 24.0 MiB"), HasSubstr("20.0 MiB free"),
                          HasSubstr("lower max_batch_size (4)")));
  const std::string cpu = Refusal("cpu", kMebibyte, 24 * kMebibyte);
  EXPECT_THAT(cpu, AllOf(HasSubstr("does not fit"), HasSubstr("1.0 MiB free")));
  EXPECT_EQ(cpu.find("memory_fraction"), cpu.npos);
  // Room for the rest, but not for the cache that was asked for.
  options_.max_batch_size = 512;
  options_.max_length = 1024;
  kv_bytes_ = int64_t{1} << 40;
  EXPECT_THAT(Refusal("cpu", 100 * kMebibyte, 100 * kMebibyte),
              AllOf(HasSubstr("kv, full attention "), HasSubstr("lower kv_cache_memory")));
}

TEST_F(MemoryTest, GraphsHaveAReserveOnCuda) {
  options_.mode = Mode::kDecoderGraph;
  const auto table = On("cuda", 16 * kGibibyte, 16 * kGibibyte);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(BytesOfUse(*table, "graphs"), 4 * kMebibyte);
  options_.mode = Mode::kDecoder;
  EXPECT_EQ(BytesOfUse(*On("cuda", 16 * kGibibyte, 16 * kGibibyte), "graphs"), 0u);
}

TEST_F(MemoryTest, FillingHasBlocksOfItsOwnAndItsGraphsAReserve) {
  const auto without = On("cuda", 16 * kGibibyte, 16 * kGibibyte);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ(BytesOfUse(*without, "kv, filling"), 0u);
  options_.fill_prefill = true;
  options_.mode = Mode::kDecoderGraph;
  const auto table = On("cuda", 16 * kGibibyte, 16 * kGibibyte);
  ASSERT_TRUE(table.ok()) << table.status();
  const auto sizes = static_cast<uint64_t>(PrefillSizes(options_).all().size());
  EXPECT_GT(sizes, 0u);
  EXPECT_EQ(BytesOfUse(*table, "graphs"), (4 + sizes) * kMebibyte);
  const auto blocks = static_cast<uint64_t>(FillingBlocks(options_));
  EXPECT_GT(blocks, 0u);
  EXPECT_EQ(BytesOfUse(*table, "kv, filling"), blocks * BlockBytes());
  options_.mode = Mode::kEager;
  EXPECT_EQ(BytesOfUse(*On("cuda", 16 * kGibibyte, 16 * kGibibyte), "kv, filling"), 0u);
}

// What was planned is what a device then counts, use by use.
TEST_F(MemoryTest, TheFiguresAreWhatIsTaken) {
  options_.mode = Mode::kDecoderGraph;
  options_.fill_prefill = true;
  const auto device = CreateCpuDevice(1).value();
  const auto table = PlanDeviceMemory(Request(), DeviceMemory::Of(*device));
  ASSERT_TRUE(table.ok()) << table.status();
  options_.kv_blocks = table->kv_blocks;
  const auto model = MakeRandomModel(*device, DType::kBFloat16, 1).value();
  const auto executor = Executor::Create(*device, model.descriptor, model.weights, options_);
  ASSERT_TRUE(executor.ok()) << executor.status();
  const auto taken = [&](MemoryUse use) {
    return device->counters().bytes[static_cast<int>(use)].load();
  };
  EXPECT_EQ(taken(MemoryUse::kKv), BytesOfUse(*table, "kv, "));
  EXPECT_EQ(taken(MemoryUse::kLanes), BytesOfUse(*table, "lanes"));
  // The CPU's operations have scratch memory of their own, which is small.
  EXPECT_GE(taken(MemoryUse::kWorkspace), BytesOfUse(*table, "workspace"));
  EXPECT_LE(taken(MemoryUse::kWorkspace), BytesOfUse(*table, "workspace") + 4 * kMebibyte);
  EXPECT_THAT(MemoryInUse(*device), AllOf(HasSubstr("weights "), HasSubstr(", kv ")));
}

}  // namespace
}  // namespace sirocco
