// Which device a configuration gets, and what is said where it is not the one asked for.
#include "server/model/open_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/graphs/fake_device.h"

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class FakeCuda final : public FakeDevice {
 public:
  std::string_view backend() const override { return "cuda"; }
};

absl::StatusOr<std::unique_ptr<Device>> Found() { return std::make_unique<FakeCuda>(); }
absl::StatusOr<std::unique_ptr<Device>> NotFound() {
  return absl::NotFoundError("no plugin at lib/libsirocco_cuda.so");
}

Config With(const std::string& backend) {
  Config config;
  config.backend = backend;
  config.threads = 1;
  return config;
}

TEST(OpenDeviceTest, AutoTakesCudaWhereItIs) {
  const auto opened = OpenDevice(With("auto"), Found);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->device->backend(), "cuda");
  EXPECT_THAT(opened->why, HasSubstr("auto"));
}

TEST(OpenDeviceTest, AutoTakesTheCpuElseAndSaysWhy) {
  const auto opened = OpenDevice(With("auto"), NotFound);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->device->backend(), "cpu");
  EXPECT_THAT(opened->why, AllOf(HasSubstr("auto"), HasSubstr("no plugin at lib")));
}

TEST(OpenDeviceTest, WhatIsNamedIsTaken) {
  const auto cuda = OpenDevice(With("cuda"), Found);
  ASSERT_TRUE(cuda.ok()) << cuda.status();
  EXPECT_EQ(cuda->device->backend(), "cuda");
  bool asked = false;
  const auto cpu = OpenDevice(With("cpu"), [&] {
    asked = true;
    return Found();
  });
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  EXPECT_EQ(cpu->device->backend(), "cpu");
  EXPECT_FALSE(asked);
  EXPECT_EQ(cpu->why, "asked for");
}

TEST(OpenDeviceTest, CudaThatIsNotThereIsAnErrorOfTheDevice) {
  const absl::Status status = OpenDevice(With("cuda"), NotFound).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);  // exit status 1
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("backend"), HasSubstr("cuda"), HasSubstr("no plugin at lib")));
}

}  // namespace
}  // namespace sirocco
