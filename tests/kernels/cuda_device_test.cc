// What is true of the CUDA device alone: faults that stay, and work that is done behind the launch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "kernels/ops.h"
#include "tests/kernels/devices.h"

namespace sirocco {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Device> FirstCudaDevice() {
  for (const DeviceCase& device_case : Devices()) {
    if (device_case.name.rfind("cuda", 0) == 0) return device_case.create().value();
  }
  return nullptr;
}

// A fault of the device stays: whatever is asked then answers with it.
TEST(CudaDeviceTest, AFaultStays) {
  const std::unique_ptr<Device> device = FirstCudaDevice();
  if (device == nullptr) GTEST_SKIP() << "no GPU here";
  const auto buffer = device->Allocate(1000, MemoryUse::kWorkspace);
  const auto host = device->AllocateHost(1000);
  ASSERT_TRUE(buffer.ok() && host.ok());
  // More than either holds: CUDA knows both, and refuses.
  const absl::Status fault =
      device->CopyToHost((*host)->data(), (*buffer)->data(), size_t{1} << 40);
  EXPECT_EQ(fault.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(fault.message()), HasSubstr("cudaMemcpyAsync: cudaError"));
  EXPECT_EQ(device->Synchronize(), fault);
  AddParams add;
  add.rows = 1;
  add.sum = add.delta = {(*buffer)->data(), DType::kFloat32, 8};
  EXPECT_EQ(device->ops().Run(add), fault);
  EXPECT_EQ(device->Allocate(1, MemoryUse::kWorkspace).status(), fault);
  EXPECT_EQ(device->Mark().status(), fault);
}

// Exits with 0 where the fault of a kernel is what the device answers from then on.
[[noreturn]] void ProvokeAFault() {
  const std::unique_ptr<Device> device = FirstCudaDevice();
  AddParams add;
  add.rows = 1;
  add.sum = add.delta = {reinterpret_cast<void*>(64), DType::kFloat32, 8};  // nobody's memory
  absl::Status status = device->ops().Run(add);
  for (int i = 0; status.ok() && i < 1000; ++i) {
    status = device->Allocate(1 << 20, MemoryUse::kWorkspace).status();
  }
  std::cerr << status << std::endl;
  const bool stays = device->Synchronize() == status;
  std::_Exit(status.code() == absl::StatusCode::kInternal && stays ? 0 : 1);
}

// A kernel's fault shows in what is asked next, be it memory: as the fault, and not as memory that
// is taken. In a process of its own, which loses the device.
TEST(CudaDeviceDeathTest, AKernelsFaultIsNotToldAsExhaustedMemory) {
  if (FirstCudaDevice() == nullptr) GTEST_SKIP() << "no GPU here";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(ProvokeAFault(), ::testing::ExitedWithCode(0), "cudaErrorIllegalAddress");
}

// Launching takes microseconds; these products take the device milliseconds.
TEST(CudaDeviceTest, LaunchesReturnBeforeTheWorkIsDone) {
  const std::unique_ptr<Device> device = FirstCudaDevice();
  if (device == nullptr) GTEST_SKIP() << "no GPU here";
  ASSERT_TRUE(device->runs_ahead());
  constexpr int32_t kSize = 4096;
  constexpr size_t kBytes = size_t{kSize} * kSize * sizeof(float);
  const auto in = device->Allocate(kBytes, MemoryUse::kWorkspace);
  const auto weight = device->Allocate(kBytes, MemoryUse::kWorkspace);
  const auto out = device->Allocate(kBytes, MemoryUse::kWorkspace);
  ASSERT_TRUE(in.ok() && weight.ok() && out.ok());
  MatMulParams p;
  p.rows = kSize;
  p.in = {(*in)->data(), DType::kFloat32, kSize};
  p.weight = {(*weight)->data(), DType::kFloat32, kSize, kSize};
  p.out = {(*out)->data(), DType::kFloat32, kSize};
  ASSERT_TRUE(device->ops().Run(p).ok());  // loads the kernel
  ASSERT_TRUE(device->Synchronize().ok());
  const auto begin = device->Mark();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(device->ops().Run(p).ok());
  const auto end = device->Mark();
  ASSERT_TRUE(begin.ok() && end.ok());
  EXPECT_EQ(device->Seconds(*begin, *end).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(device->Wait(*end).ok());
  const auto seconds = device->Seconds(*begin, *end);
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_GT(*seconds, 0);
}

}  // namespace
}  // namespace sirocco
