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
using ::testing::Not;

class NoGraphs final : public FakeDevice {
 public:
  std::string_view backend() const override { return "cuda"; }
  absl::Status BeginRecord() override { return absl::UnimplementedError("no graphs"); }
};

absl::StatusOr<std::unique_ptr<Device>> Found() { return std::make_unique<NoGraphs>(); }
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

TEST(OpenDeviceTest, ModesWithGraphsNeedADeviceThatRecords) {
  NoGraphs cuda;
  for (const Mode mode : {Mode::kEager, Mode::kDecoder, Mode::kLayer}) {
    EXPECT_TRUE(CheckMode(mode, cuda).ok());
  }
  const absl::Status decoder = CheckMode(Mode::kDecoderGraph, cuda);
  EXPECT_EQ(decoder.code(), absl::StatusCode::kUnimplemented);  // exit status 2
  EXPECT_THAT(std::string(decoder.message()),
              AllOf(HasSubstr("decoder_graph"), HasSubstr("cuda"), HasSubstr("EOLE_COMPILE_MODE=1"),
                    HasSubstr("backend: cpu")));
  EXPECT_THAT(std::string(CheckMode(Mode::kLayerGraph, cuda).message()),
              AllOf(HasSubstr("layer_graph"), HasSubstr("EOLE_COMPILE_MODE=3")));
}

TEST(OpenDeviceTest, TheHintNamesModesThatTheDeviceRuns) {
  NoGraphs cuda;
  EXPECT_THAT(ModeHint(cuda), AllOf(HasSubstr("EOLE_COMPILE_MODE=1 (decoder)"),
                                    HasSubstr("3 (layer)"), Not(HasSubstr("graph)"))));
  FakeDevice device;
  EXPECT_THAT(ModeHint(device), HasSubstr("EOLE_COMPILE_MODE=0 (decoder_graph)"));
  EXPECT_FALSE(device.recording);
}

TEST(OpenDeviceTest, ADeviceThatRecordsIsLeftNotRecording) {
  FakeDevice device;
  EXPECT_TRUE(CheckMode(Mode::kDecoderGraph, device).ok());
  EXPECT_FALSE(device.recording);
}

}  // namespace
}  // namespace sirocco
