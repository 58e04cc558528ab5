// The emulated GPU itself (emulated/gpu.h): that it stops where the hardware would hang, fault, or
// read what is not there yet.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/cuda/panel_ptx.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "tests/kernels/emulated/gpu.h"
#include "tests/kernels/emulated/guarded.h"
#include "tests/kernels/emulated/language.h"

namespace sirocco::cuda::hopper {
namespace {

constexpr size_t kShared = 4096;

// A block, or a cluster, of two warps.
void RunBlocks(const std::function<void()>& kernel, unsigned blocks = 1) {
  emulated::RunGrid(dim3(blocks), 64, blocks, kShared, [&] {
    WaitForDependency();
    kernel();
  });
}
float* SharedFloats() { return reinterpret_cast<float*>(emulated::Shared()); }
int Thread() { return static_cast<int>(threadIdx.x); }

TEST(EmulatedGpuTest, BlocksOfAGridHaveTheirIndices) {
  std::vector<int> seen(4 * 3 * 2);
  emulated::RunGrid(dim3(4, 3, 2), 32, 2, kShared, [&] {
    WaitForDependency();
    EXPECT_EQ(gridDim.y, 3);
    if (Thread() == 0) ++seen[(blockIdx.z * 3 + blockIdx.y) * 4 + blockIdx.x];
  });
  EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
}

TEST(EmulatedGpuTest, LanesExchange) {
  RunBlocks([] {
    const int lane = Thread() % 32;
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(__shfl_xor_sync(0xffffffffu, Thread(), 5), Thread() ^ 5);
      EXPECT_EQ(__shfl_sync(0xffffffffu, lane, 7), 7);
      EXPECT_EQ(__shfl_up_sync(0xffffffffu, lane, 2), lane < 2 ? lane : lane - 2);
      EXPECT_EQ(__reduce_max_sync(0xffffffffu, static_cast<uint32_t>(Thread())), Thread() | 31);
      EXPECT_EQ(__any_sync(0xffffffffu, Thread() == 40), Thread() >= 32);
    }
  });
}

TEST(EmulatedGpuTest, BlocksOfAClusterReachEachOther) {
  RunBlocks(
      [] {
        ArriveCluster();
        WaitCluster();
        *SharedOfBlock(SharedFloats() + Thread(), 1 - blockIdx.x) = 100.f * blockIdx.x + Thread();
        ArriveCluster();
        WaitCluster();
        EXPECT_EQ(SharedFloats()[Thread()], 100.f * (1 - blockIdx.x) + Thread());
      },
      2);
}

TEST(EmulatedGpuTest, CopiesAreMadeWhenTheyAreWaitedFor) {
  alignas(16) const float from[4] = {1, 2, 3, 4};
  RunBlocks([&] {
    float* const to = SharedFloats() + 4 * Thread();
    CopyAsync16(to, from);
    CommitCopies();
    CommitCopies();
    WaitForCopies<2>();
    EXPECT_TRUE(std::isnan(to[0]));
    WaitForCopies<1>();
    EXPECT_EQ(to[3], 4);
  });
}

TEST(EmulatedGpuTest, CopiesOfBytesCountForABarrier) {
  alignas(16) const float from[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  RunBlocks([&] {
    float* const to = SharedFloats() + 8;
    auto* const barrier = reinterpret_cast<uint64_t*>(emulated::Shared());
    if (Thread() == 0) {
      InitBarrier(barrier, 1);
      PublishBarriers();
      ArriveExpecting(barrier, 48);
      CopyBytes(to, from, 32, barrier);
      CopyBytes(to + 8, from + 4, 16, barrier);
    }
    __syncthreads();
    WaitBarrier(barrier, 0);
    EXPECT_EQ(to[7], 8);
    EXPECT_EQ(to[8], 5);
    EXPECT_TRUE(std::isnan(to[12]));
  });
}

TEST(EmulatedGpuDeathTest, WhereNobodyCanGoOn) {
  for (const unsigned blocks : {1, 2}) {
    // Half of the block at a barrier of all.
    EXPECT_DEATH(RunBlocks(
                     [] {
                       if (Thread() < 32) __syncthreads();
                     },
                     blocks),
                 "nobody can go on");
    // A lane leaves its warp.
    EXPECT_DEATH(RunBlocks(
                     [] {
                       if (Thread() != 3) __syncwarp();
                     },
                     blocks),
                 "nobody can go on");
    // A phase that does not end.
    EXPECT_DEATH(RunBlocks(
                     [] {
                       auto* const barrier = reinterpret_cast<uint64_t*>(emulated::Shared());
                       if (Thread() == 0) InitBarrier(barrier, 2);
                       __syncthreads();
                       if (Thread() == 0) ArriveBarrier(barrier);
                       WaitBarrier(barrier, 0);
                     },
                     blocks),
                 "nobody can go on");
    // Of more bytes than come.
    alignas(16) const float from[4] = {};
    EXPECT_DEATH(RunBlocks(
                     [&] {
                       auto* const barrier = reinterpret_cast<uint64_t*>(emulated::Shared());
                       if (Thread() == 0) {
                         InitBarrier(barrier, 1);
                         ArriveExpecting(barrier, 32);
                         CopyBytes(SharedFloats() + 4, from, 16, barrier);
                       }
                       __syncthreads();
                       WaitBarrier(barrier, 0);
                     },
                     blocks),
                 "nobody can go on");
  }
  EXPECT_DEATH(RunBlocks(
                   [] {
                     if (blockIdx.x == 0) ArriveCluster();
                     if (blockIdx.x == 0) WaitCluster();
                   },
                   2),
               "nobody can go on");
}

TEST(EmulatedGpuDeathTest, LanesAtDifferentInstructions) {
  EXPECT_DEATH(RunBlocks([] {
                 if (Thread() % 2 == 0) __syncwarp();
                 if (Thread() % 2 == 1) __shfl_sync(0xffffffffu, 1, 0);
               }),
               "lanes of a warp at different instructions");
  EXPECT_DEATH(RunBlocks([] { __shfl_sync(0xffffu, 1, 0); }), "a part of a warp");
}

// One thread of the block has not waited, or none.
TEST(EmulatedGpuDeathTest, WhatTheKernelBeforeMayStillWrite) {
  const char* const early = "thread 7: reads or writes what the kernel before may still";
  const emulated::Guarded<float> values(64);
  const auto run = [&](const std::function<void()>& body) {
    emulated::RunGrid(dim3(1), 32, 1, kShared, [&] {
      if (Thread() != 7) WaitForDependency();
      if (Thread() == 7) body();
    });
  };
  EXPECT_DEATH(run([&] { SharedFloats()[0] = values[3]; }), early);
  EXPECT_DEATH(run([&] { values[3] = 1; }), early);
  EXPECT_DEATH(run([&] { CopyAsync16(SharedFloats(), values.data()); }), early);
  EXPECT_DEATH(run([&] {
                 auto* const barrier = reinterpret_cast<uint64_t*>(emulated::Shared());
                 InitBarrier(barrier, 1);
                 CopyBytes(SharedFloats() + 4, values.data(), 16, barrier);
               }),
               early);
  run([&] {
    WaitForDependency();
    values[3] = 1;
  });
  EXPECT_EQ(values[3], 1);
  EXPECT_DEATH(emulated::RunGrid(dim3(1), 32, 1, kShared, [] {}), "waits for no kernel");
}

TEST(EmulatedGpuDeathTest, SharedMemory) {
  EXPECT_DEATH(RunBlocks([] { SharedFloats()[kShared / 4] = 0; }), "outside of its shared memory");
  EXPECT_DEATH(RunBlocks([] { SharedFloats()[-1] = 0; }), "outside of its shared memory");
  alignas(16) const float from[4] = {};
  EXPECT_DEATH(RunBlocks([&] { CopyAsync16(SharedFloats() + kShared / 4, from); }),
               "outside of its shared memory");
  EXPECT_DEATH(RunBlocks([&] { CopyAsync16(SharedFloats() + 1, from); }), "not aligned");
  const auto copy = [&](int to, uint32_t bytes) {
    RunBlocks([&] {
      auto* const barrier = reinterpret_cast<uint64_t*>(emulated::Shared());
      if (Thread() == 0) InitBarrier(barrier, 1);
      if (Thread() == 0) CopyBytes(SharedFloats() + to, from, bytes, barrier);
    });
  };
  EXPECT_DEATH(copy(kShared / 4, 16), "outside of its shared memory");
  EXPECT_DEATH(copy(kShared / 4 - 4, 32), "outside of its shared memory");
  EXPECT_DEATH(copy(5, 16), "not aligned");
  EXPECT_DEATH(copy(4, 8), "not aligned");
  EXPECT_DEATH(RunBlocks([&] {
                 CopyAsync16(SharedFloats(), from);
                 CommitCopies();
               }),
               "ends before its copies");
  EXPECT_DEATH(RunBlocks(
                   [] {
                     ArriveCluster();
                     if (blockIdx.x == 1) return;
                     WaitCluster();
                     *SharedOfBlock(SharedFloats(), 1) = 0;
                   },
                   2),
               "a block that does not run");
}

}  // namespace
}  // namespace sirocco::cuda::hopper
