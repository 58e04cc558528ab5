// What is asked of CUDA, with a runtime that counts.
#include "kernels/cuda/kernel_attributes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>
#include <vector>

namespace {

std::mutex mutex;
std::map<std::tuple<const void*, cudaFuncAttribute, int>, int> set;  // kernel, attribute, device
std::atomic<int> calls = 0;
std::atomic<bool> refuses = false;
thread_local int current = 0;

}  // namespace

// In place of the runtime's.
extern "C" cudaError_t CUDARTAPI cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}
extern "C" cudaError_t CUDARTAPI cudaFuncSetAttribute(const void* kernel,
                                                      cudaFuncAttribute attribute, int value) {
  ++calls;
  if (refuses) return cudaErrorInvalidValue;
  const std::lock_guard lock(mutex);
  set[{kernel, attribute, current}] = value;
  return cudaSuccess;
}

namespace sirocco::cuda {
namespace {

constexpr cudaFuncAttribute kBytes = cudaFuncAttributeMaxDynamicSharedMemorySize;
constexpr cudaFuncAttribute kCarveout = cudaFuncAttributePreferredSharedMemoryCarveout;

// Each test has kernels of its own: what is known is the process's.
const void* Kernel(int test, int i = 0) {
  return reinterpret_cast<const void*>((uintptr_t{1} << 32) * test +
                                       static_cast<uintptr_t>(i) * 16);
}

int CallsOf(const void* kernel, cudaFuncAttribute attribute, int value) {
  const int before = calls;
  EXPECT_EQ(RaiseAttribute(kernel, attribute, value), cudaSuccess);
  return calls - before;
}

TEST(KernelAttributesTest, TheSameAndLessIsNotAskedAgain) {
  EXPECT_EQ(CallsOf(Kernel(1), kBytes, 65536), 1);
  EXPECT_EQ(CallsOf(Kernel(1), kBytes, 65536), 0);
  EXPECT_EQ(CallsOf(Kernel(1), kBytes, 40000), 0);
  EXPECT_EQ(CallsOf(Kernel(1), kBytes, 98304), 1);
  EXPECT_EQ(CallsOf(Kernel(1), kBytes, 65536), 0);
  EXPECT_EQ((set[{Kernel(1), kBytes, 0}]), 98304);
}

TEST(KernelAttributesTest, EachAttributeKernelAndDeviceForItself) {
  EXPECT_EQ(CallsOf(Kernel(2), kBytes, 100), 1);
  EXPECT_EQ(CallsOf(Kernel(2), kCarveout, 100), 1);
  EXPECT_EQ(CallsOf(Kernel(2, 1), kBytes, 100), 1);
  current = 1;
  EXPECT_EQ(CallsOf(Kernel(2), kBytes, 100), 1);
  EXPECT_EQ(CallsOf(Kernel(2), kBytes, 100), 0);
  current = 0;
  EXPECT_EQ(CallsOf(Kernel(2), kBytes, 100), 0);
  EXPECT_EQ((set[{Kernel(2), kBytes, 1}]), 100);
}

TEST(KernelAttributesTest, WhatCudaRefusesIsAskedAgain) {
  refuses = true;
  EXPECT_EQ(RaiseAttribute(Kernel(3), kBytes, 100), cudaErrorInvalidValue);
  refuses = false;
  EXPECT_EQ(CallsOf(Kernel(3), kBytes, 100), 1);
  refuses = true;
  EXPECT_EQ(RaiseAttribute(Kernel(3), kBytes, 200), cudaErrorInvalidValue);
  refuses = false;
  EXPECT_EQ(CallsOf(Kernel(3), kBytes, 100), 0);
  EXPECT_EQ(CallsOf(Kernel(3), kBytes, 200), 1);
}

// Whoever returns may launch: CUDA then has at least what was asked.
TEST(KernelAttributesTest, ThreadsSideBySide) {
  constexpr int kThreads = 4, kKernels = 300;
  std::atomic<int> wrong = 0;
  const int before = calls;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 50; ++round) {
        for (int i = 0; i < kKernels; ++i) {
          const void* const kernel = Kernel(4, (i * 7 + t * 75) % kKernels);
          const int value = 1 + (t + round) % 3;
          if (RaiseAttribute(kernel, kBytes, value) != cudaSuccess) ++wrong;
          const std::lock_guard lock(mutex);
          const auto has = set.find({kernel, kBytes, 0});
          if (has == set.end() || has->second < value) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(calls - before, 3 * kKernels);
}

// The last test: nothing finds a place afterwards.
TEST(KernelAttributesTest, WithoutAPlaceItIsStillAsked) {
  constexpr int kMany = 20000;
  for (int i = 0; i < kMany; ++i) EXPECT_EQ(CallsOf(Kernel(5, i), kBytes, 100), 1);
  int again = 0;
  for (int i = 0; i < kMany; ++i) again += CallsOf(Kernel(5, i), kBytes, 100);
  EXPECT_LT(again, kMany);
  EXPECT_GE(again, kMany - 4096);
  for (int i = 0; i < kMany; ++i) EXPECT_EQ((set[{Kernel(5, i), kBytes, 0}]), 100);
}

}  // namespace
}  // namespace sirocco::cuda
