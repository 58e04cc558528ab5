// The fixtures of the operations' tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "tests/kernels/devices.h"
#include "tests/kernels/tensors.h"

namespace sirocco {

class OpsTestBase {
 protected:
  explicit OpsTestBase(const DeviceCase& device_case)
      : device_case_(device_case),
        device_(device_case.create().value()),
        memory_(std::make_unique<Memory>(*device_)) {}

  DType activations() const { return device_case_.activations; }
  double tolerance() const { return ToleranceOf(device_case_.activations); }
  // Of float32 made from float32.
  static double residual_tolerance() { return ToleranceOf(DType::kFloat32); }
  Device& device() { return *device_; }
  Ops& ops() { return device_->ops(); }
  Memory& memory() { return *memory_; }

  // Runs an operation to its end.
  template <typename Params>
  void Execute(const Params& params) {
    const absl::Status status = ops().Run(params);
    ASSERT_TRUE(status.ok()) << status;
    const absl::Status fault = device_->Synchronize();
    ASSERT_TRUE(fault.ok()) << fault;
  }

 private:
  DeviceCase device_case_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Memory> memory_;
};

// For operations without weights or KV, and for those with.
class OpsTest : public ::testing::TestWithParam<DeviceCase>, protected OpsTestBase {
 protected:
  OpsTest() : OpsTestBase(GetParam()) {}
};

class TypedOpsTest : public ::testing::TestWithParam<TypedCase>, protected OpsTestBase {
 protected:
  TypedOpsTest() : OpsTestBase(GetParam().device) {}
  DType dtype() const { return GetParam().dtype; }
  DType kv_dtype() const { return GetParam().kv; }
};

#define SIROCCO_ON_ALL_DEVICES(Suite)                                  \
  INSTANTIATE_TEST_SUITE_P(All, Suite, ::testing::ValuesIn(Devices()), \
                           [](const auto& info) { return CaseName(info.param); })
#define SIROCCO_ON_ALL_TYPED_DEVICES(Suite)                               \
  INSTANTIATE_TEST_SUITE_P(All, Suite, ::testing::ValuesIn(TypedCases()), \
                           [](const auto& info) { return CaseName(info.param); })
#define SIROCCO_ON_ALL_FLOAT8_DEVICES(Suite)                                  \
  INSTANTIATE_TEST_SUITE_P(Float8, Suite, ::testing::ValuesIn(Float8Cases()), \
                           [](const auto& info) { return CaseName(info.param); })

}  // namespace sirocco
