// Memory, recording, faults and refusals of a device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/cpu/cpu_device.h"
#include "kernels/operation_ops.h"
#include "tests/kernels/fused_world.h"
#include "tests/kernels/ops_test.h"
#include "tests/kernels/world.h"

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class DeviceTest : public OpsTest {};

TEST_P(DeviceTest, AllocatedMemoryIsZeroAlignedAndCounted) {
  const uint64_t allocations = device().counters().allocations.load();
  const auto buffer = device().Allocate(1000, MemoryUse::kLanes);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ((*buffer)->bytes(), 1000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*buffer)->data()) % 64, 0u);
  EXPECT_EQ(memory().Download((*buffer)->as<uint8_t>(), 1000), std::vector<uint8_t>(1000, 0));
  EXPECT_EQ(device().counters().allocations.load(), allocations + 1);
  EXPECT_EQ(device().counters().bytes[static_cast<int>(MemoryUse::kLanes)].load(), 1000u);
}

// An operation refuses the type of its weights where the device does not offer it, and only there.
TEST_P(DeviceTest, OffersTheTypesThatOperationsTake) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    const DType rows = device().ActivationDType(dtype);
    const absl::Status status = ops().Run(
        MatMulParams{.rows = 1,
                     .in = memory().Empty(1, rows, 16),
                     .weight = memory().Weights(std::vector<float>(16 * 16), dtype, 16, 16),
                     .out = memory().Empty(1, rows, 16)});
    EXPECT_EQ(device().Offers(dtype), status.ok()) << NameOf(dtype) << ": " << status;
  }
}

TEST_P(DeviceTest, WhatIsFreeIsAShareOfAll) {
  EXPECT_GT(device().FreeBytes(), 0u);
  EXPECT_GE(device().TotalBytes(), device().FreeBytes());
}

TEST_P(DeviceTest, ReadingIsMeasuredAndItsMemoryGivenBack) {
  const size_t bytes = size_t{64} << 20;
  const uint64_t held = device().counters().bytes[static_cast<int>(MemoryUse::kWeights)].load();
  const auto rate = device().MeasureReadBandwidth(bytes);
  ASSERT_TRUE(rate.ok()) << rate.status();
  // Bytes a second, not another unit; a machine under load may be slow.
  EXPECT_GT(*rate, 1e6);
  EXPECT_LT(*rate, 1e14);
  EXPECT_EQ(device().counters().bytes[static_cast<int>(MemoryUse::kWeights)].load(), held);
}

TEST_P(DeviceTest, MoreMemoryThanThereIsIsRefusedWithFigures) {
  const size_t petabyte = size_t{1} << 50;
  const auto buffer = device().Allocate(petabyte, MemoryUse::kWeights);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(buffer.status().message()),
              AllOf(HasSubstr("weights"), HasSubstr("1125899906842624 bytes asked"),
                    HasSubstr("bytes free")));
  EXPECT_EQ(device().Allocate(~size_t{0}, MemoryUse::kWeights).status().code(),
            absl::StatusCode::kResourceExhausted);
  auto reservation = device().Reserve(size_t{1} << 44, MemoryUse::kKv);
  if (reservation.ok()) {  // an address range costs nothing; memory behind it does
    EXPECT_EQ((*reservation)->Map(size_t{1} << 44).code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST_P(DeviceTest, AReservationIsMappedOnceAndNotBeyondItsEnd) {
  const auto reservation = device().Reserve(size_t{1} << 30, MemoryUse::kKv);
  ASSERT_TRUE(reservation.ok()) << reservation.status();
  EXPECT_EQ((*reservation)->bytes(), size_t{1} << 30);
  EXPECT_EQ(device().counters().bytes[static_cast<int>(MemoryUse::kKv)].load(), 0u);
  EXPECT_EQ((*reservation)->Map((size_t{1} << 30) + 1).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE((*reservation)->Map(100000).ok());
  const std::vector<uint8_t> ones(100000, 1);
  uint8_t* data = (*reservation)->as<uint8_t>();
  EXPECT_EQ(memory().Download(data, 100000), std::vector<uint8_t>(100000, 0));
  ASSERT_TRUE(device().CopyToDevice(data, ones.data(), ones.size()).ok());
  EXPECT_EQ(memory().Download(data, 100000), ones);
  EXPECT_EQ(device().counters().bytes[static_cast<int>(MemoryUse::kKv)].load(), 100000u);
  EXPECT_EQ((*reservation)->Map(100).code(), absl::StatusCode::kFailedPrecondition);
}

// Small, and of several huge pages and a part of one.
TEST_P(DeviceTest, HostMemoryIsZeroCountedAndCopiedBothWays) {
  for (const size_t size : {size_t{1000}, (size_t{5} << 20) + 3}) {
    const uint64_t allocations = device().counters().allocations.load();
    const uint64_t held = device().counters().host_bytes.load();
    const auto host = device().AllocateHost(size);
    ASSERT_TRUE(host.ok()) << host.status();
    EXPECT_EQ(device().counters().allocations.load(), allocations + 1);
    EXPECT_EQ(device().counters().host_bytes.load(), held + size);
    EXPECT_EQ((*host)->bytes(), size);
    uint8_t* bytes = (*host)->as<uint8_t>();
    const auto all = [&](uint8_t value) {
      return std::count(bytes, bytes + size, value) == static_cast<ptrdiff_t>(size);
    };
    EXPECT_TRUE(all(0));
    std::fill(bytes, bytes + size, uint8_t{7});
    void* on_device = memory().Raw(nullptr, size);
    ASSERT_TRUE(device().CopyToDevice(on_device, bytes, size).ok());
    auto mark = device().Mark();
    ASSERT_TRUE(mark.ok() && device().Wait(*mark).ok());
    std::fill(bytes, bytes + size, uint8_t{0});
    ASSERT_TRUE(device().CopyToHost(bytes, on_device, size).ok());
    mark = device().Mark();
    ASSERT_TRUE(mark.ok() && device().Wait(*mark).ok());
    EXPECT_TRUE(all(7));
  }
}

TEST_P(DeviceTest, MoreHostMemoryThanThereIsIsRefused) {
  for (const size_t bytes : {size_t{1} << 50, ~size_t{0} >> 1}) {
    EXPECT_EQ(device().AllocateHost(bytes).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

// Small, large, odd: backends copy them by different ways. The two halves of the largest differ, so
// that a piece in the wrong place shows.
TEST_P(DeviceTest, CopiesOfAnySizeFromAnyPlace) {
  for (const size_t bytes : {size_t{1}, size_t{3}, size_t{65536}, size_t{65537},
                             (size_t{32} << 20) + 1, (size_t{70} << 20) + 5}) {
    SCOPED_TRACE(bytes);
    std::vector<uint8_t> sent(bytes + 1);
    for (size_t i = 0; i < sent.size(); ++i) {
      sent[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
    }
    const auto buffer = device().Allocate(bytes + 3, MemoryUse::kWorkspace);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    uint8_t* to = (*buffer)->as<uint8_t>() + 1;
    ASSERT_TRUE(device().CopyToDevice(to, sent.data() + 1, bytes).ok());
    std::vector<uint8_t> got(bytes + 3);
    ASSERT_TRUE(device().CopyToHost(got.data(), to - 1, bytes + 3).ok());
    ASSERT_TRUE(device().Synchronize().ok());
    EXPECT_EQ(got[0], 0);
    EXPECT_EQ(got[bytes + 1], 0);
    ASSERT_EQ(std::memcmp(got.data() + 1, sent.data() + 1, bytes), 0);
  }
  EXPECT_TRUE(device().CopyToDevice(nullptr, nullptr, 0).ok());
  EXPECT_TRUE(device().CopyToHost(nullptr, nullptr, 0).ok());
}

TEST_P(DeviceTest, MarksTellTheTimeBetweenThemForAThousandMore) {
  const auto first = device().Mark();
  ASSERT_TRUE(first.ok()) << first.status();
  DeviceMark last = *first;
  for (int i = 0; i < 1000; ++i) {
    const auto mark = device().Mark();
    ASSERT_TRUE(mark.ok()) << mark.status();
    last = *mark;
  }
  EXPECT_TRUE(device().Wait(*first).ok());
  ASSERT_TRUE(device().Wait(last).ok());
  const auto seconds = device().Seconds(*first, last);
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_GE(*seconds, 0);
  EXPECT_LT(*seconds, 60);
}

// Prepared for many rows, which a backend may have a library for, and run for few, which may be
// other kernels' with scratch of their own: of so many inputs that their sums are made in parts.
TEST_P(DeviceTest, WhatWasPreparedRunsWithoutAllocating) {
  constexpr int32_t kInputs = 2048;
  MatMulParams p;
  p.rows = 20;
  p.in = memory().Activations(std::vector<float>(20 * kInputs, 1.0f), activations(), kInputs);
  p.weight = memory().Weights(std::vector<float>(16 * kInputs, 0.25f), activations(), 16, kInputs);
  p.out = memory().Empty(20, activations(), 16);
  ASSERT_TRUE(device().BeginPrepare().ok());
  ASSERT_TRUE(ops().Run(p).ok());
  ASSERT_TRUE(device().EndPrepare().ok());
  EXPECT_EQ(memory().Download(p.out, 20), std::vector<float>(20 * 16, 0.0f));
  const uint64_t allocations = device().counters().allocations.load();
  const uint64_t launches = device().counters().launches.load();
  for (const int32_t rows : {20, 11, 8, 3}) {
    p.rows = rows;
    Execute(p);
  }
  EXPECT_EQ(memory().Download(p.out, 20), std::vector<float>(20 * 16, kInputs * 0.25f));
  EXPECT_EQ(device().counters().allocations.load(), allocations);
  EXPECT_EQ(device().counters().launches.load(), launches + 4);
}

// The same, where few rows are cut otherwise than many.
TEST_P(DeviceTest, AttentionThatWasPreparedRunsWithoutAllocating) {
  constexpr int32_t kRows = 40, kHeads = 4, kDim = 16;
  World world(memory(), {.lanes = 4, .max_length = 600}, 1);  // three splits of 256 slots
  const KvCache cache(memory(), world, activations(), 2, kDim, 0, 2);
  std::vector<int32_t> lane(kRows);
  for (int32_t r = 0; r < kRows; ++r) lane[r] = r % 4;
  DecodeAttentionParams p;
  p.rows = kRows;
  p.map = world.Map(lane, std::vector<int32_t>(kRows, 599));
  p.lanes = world.lanes();
  p.q = memory().Empty(kRows, activations(), kHeads * kDim);
  p.out = memory().Empty(kRows, activations(), kHeads * kDim);
  p.shape.heads = kHeads;
  p.shape.scale = 1;
  p.kv = cache.layer();
  ASSERT_TRUE(device().BeginPrepare().ok());
  ASSERT_TRUE(ops().Run(p).ok());
  ASSERT_TRUE(device().EndPrepare().ok());
  const uint64_t allocations = device().counters().allocations.load();
  for (const int32_t rows : {kRows, 7, 5, 1}) {
    p.rows = rows;
    Execute(p);
  }
  EXPECT_EQ(device().counters().allocations.load(), allocations);
}

// What no table has a part in is not measured: few rows are no library's.
TEST_P(DeviceTest, ProductsOfFewRowsAreNotTuned) {
  MatMulParams many;
  many.rows = 20;
  many.in = memory().Activations(std::vector<float>(20 * 32, 1.0f), activations(), 32);
  many.weight = memory().Weights(std::vector<float>(16 * 32, 1.0f), activations(), 16, 32);
  many.out = memory().Empty(20, activations(), 16);
  MatMulParams few = many;
  few.rows = 4;
  const auto entries = device().TuneProducts(std::vector<MatMulParams>{few, many});
  if (GetParam().batch_invariant) {  // no library, no table
    EXPECT_EQ(entries.status().code(), absl::StatusCode::kUnimplemented);
    return;
  }
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 1u);
  EXPECT_THAT(entries->front(), HasSubstr("{32, 16, 32, "));  // the rows' bucket, outputs, inputs
}

TEST_P(DeviceTest, AFaultShowsOnceInSynchronize) {
  World world(memory(), {}, 1);
  BeginStepParams p;
  p.rows = 1;
  p.map = world.Map({0}, {0});
  p.updates = memory().Upload(std::vector<BlockUpdate>{{0, 0, 1 << 20, 3}});
  p.update_count = memory().Upload(std::vector<int32_t>{1});
  p.lanes = world.lanes();
  ASSERT_TRUE(ops().Run(p).ok());
  const absl::Status fault = device().Synchronize();
  EXPECT_THAT(std::string(fault.message()), HasSubstr("block update 0"));
  EXPECT_TRUE(device().Synchronize().ok());
}

TEST_P(DeviceTest, WrongShapesAreNamed) {
  MatMulParams p;
  p.rows = 2;
  p.in = memory().Empty(2, activations(), 8);
  p.weight = memory().Weights(std::vector<float>(24), activations(), 3, 8);
  p.out = memory().Empty(2, activations(), 4);
  const absl::Status wide = ops().Run(p);
  EXPECT_EQ(wide.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wide.message()),
              AllOf(HasSubstr("matmul"), HasSubstr("out is 4 wide"), HasSubstr("3")));
  p.out.width = 3;
  p.rows = 0;
  EXPECT_THAT(std::string(ops().Run(p).message()), HasSubstr("rows is 0"));
  p.rows = 2;
  p.in.data = nullptr;
  EXPECT_THAT(std::string(ops().Run(p).message()), HasSubstr("in is null"));
}

template <size_t... kIndices>
std::vector<Operation> EmptyOperations(std::index_sequence<kIndices...>) {
  return {Operation(std::in_place_index<kIndices>)...};
}

TEST_P(DeviceTest, EveryOperationNamesItselfAndWhatItMisses) {
  for (Operation& operation :
       EmptyOperations(std::make_index_sequence<std::variant_size_v<Operation>>())) {
    const std::string name(NameOf(operation));
    EXPECT_EQ(RunOperation(ops(), operation),
              absl::InvalidArgumentError(name + ": rows is 0, must be 1 ... 1048576"));
    std::visit([](auto& params) { params.rows = 1; }, operation);
    const absl::Status status = RunOperation(ops(), operation);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::StartsWith(name + ": ")) << status;
  }
}

SIROCCO_ON_ALL_DEVICES(DeviceTest);

// The plan and the layer's table must agree on post-norms. Only the device can see that.
TEST(CpuDeviceTest, ALayerWithPostNormsNeedsTheirBuffers) {
  const std::unique_ptr<Device> device = CreateCpuDevice(1).value();
  Memory memory(*device);
  const auto run = [&](const auto& params) {
    absl::Status status = device->ops().Run(params);
    if (status.ok()) status = device->Synchronize();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  for (const bool post_norms : {true, false}) {
    const LayerWorld w(memory, LayerShape{.post_norms = post_norms}, 2, DType::kFloat32,
                       DType::kFloat32);
    const Rows hidden = memory.Residual(w.hidden_values, w.shape.hidden);
    const Rows normed = memory.EmptyResidual(2, w.shape.hidden);
    const Rows mlp = memory.Activations(w.mlp_values, DType::kFloat32, w.shape.intermediate);
    DownResidualParams down{2, w.Ref(), mlp, hidden, nullptr, Rows()};
    if (!post_norms) {
      down.delta = normed;
      EXPECT_THAT(run(down), HasSubstr("delta is set, but the layer has no post-norm"));
      continue;
    }
    EXPECT_THAT(run(down), HasSubstr("delta is null"));
    const Rows q = memory.Empty(2, DType::kFloat32, w.ref.q_rows);
    const Rows qkv = memory.EmptyResidual(2, w.ref.q_rows + 2 * w.ref.kv_rows);
    EXPECT_THAT(run(OutputResidualParams{2, w.Ref(), q, hidden, Rows()}),
                HasSubstr("delta is null"));
    EXPECT_THAT(run(NormQkvParams{2, w.Ref(), hidden, normed, qkv, Rows(), Rows()}),
                HasSubstr("input_post_norm"));
    EXPECT_THAT(run(NormGateUpParams{2, w.Ref(), hidden, normed, mlp, Rows(), Rows()}),
                HasSubstr("attention_post_norm"));
  }
}

TEST(CpuDeviceTest, ThreadsOutOfRangeAreRefused) {
  for (const int threads : {-1, 0, 1025}) {
    EXPECT_EQ(CreateCpuDevice(threads).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(CpuDeviceTest, Float16IsRefusedByName) {
  const auto device = CreateCpuDevice(1).value();
  EXPECT_EQ(device->backend(), "cpu");
  Memory memory(*device);
  MatMulParams p;
  p.rows = 1;
  p.in = memory.Empty(1, DType::kFloat32, 4);
  p.weight = memory.Weights({1, 2, 3, 4}, DType::kFloat16, 1, 4);
  p.out = memory.Empty(1, DType::kFloat32, 1);
  const absl::Status status = device->ops().Run(p);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("weight is float16"));
}

// A fused operation finds its weights on the device: what is wrong there is a fault of the step.
TEST(CpuDeviceTest, AWrongLayerTableIsAFault) {
  const auto device = CreateCpuDevice(1).value();
  Memory memory(*device);
  OutputResidualParams p;
  p.rows = 1;
  p.layer.table = memory.Upload(std::vector<LayerParams>(1));
  p.attention = memory.Empty(1, DType::kFloat32, 4);
  p.hidden = memory.Empty(1, DType::kFloat32, 8);
  ASSERT_TRUE(device->ops().Run(p).ok());
  EXPECT_EQ(device->Synchronize().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sirocco
