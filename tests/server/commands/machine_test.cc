// What `sirocco info` tells of a machine: of drivers and GPUs from a tree of files as they write
// them, of ports and limits from this one.
#include "server/commands/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_device.h"
#include "server/metrics/http_server.h"

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Matcher;

Matcher<const MachineFact&> Fact(const std::string& name,
                                 const Matcher<const std::string&>& value) {
  return AllOf(Field(&MachineFact::name, name), Field(&MachineFact::value, value));
}

class MachineTest : public ::testing::Test {
 protected:
  MachineTest() : root_(absl::StrCat(::testing::TempDir(), "/machine")) {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  const std::string root_;
};

TEST_F(MachineTest, WithoutADriver) {
  EXPECT_THAT(DescribeDriver(root_), ElementsAre(Fact("driver", HasSubstr("none"))));
}

TEST_F(MachineTest, ADriverAndItsGpus) {
  Write("/proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
        "GCC version:  gcc version 12.2.0\n");
  Write("/proc/driver/nvidia/gpus/0000:41:00.0/information",
        "Model: \t\t NVIDIA H200\nIRQ:   \t\t 200\nGPU UUID: \t GPU-1\n");
  Write("/proc/driver/nvidia/gpus/0000:04:00.0/information", "Model: \t\t NVIDIA H100\n");
  Write("/dev/nvidiactl", "");
  EXPECT_THAT(DescribeDriver(root_), ElementsAre(Fact("driver", "NVIDIA 580.65.06"),
                                                 Fact("GPU", "NVIDIA H100, at 0000:04:00.0"),
                                                 Fact("GPU", "NVIDIA H200, at 0000:41:00.0")));
}

// As in a container that was started without the GPU.
TEST_F(MachineTest, ADriverWhoseDeviceIsNotHere) {
  Write("/proc/driver/nvidia/version", "NVRM version: something new\n");
  EXPECT_THAT(DescribeDriver(root_),
              ElementsAre(Fact("driver", "NVIDIA of an unknown version"),
                          Fact("GPU", HasSubstr("/dev/nvidiactl is not there"))));
}

TEST_F(MachineTest, TheBackendThatIsTaken) {
  Config config;
  const absl::StatusOr<std::unique_ptr<Device>> none = absl::UnavailableError("no such thing");
  EXPECT_THAT(DescribeBackend(config, none), ElementsAre(Fact("CUDA device", "none: no such thing"),
                                                         Fact("backend", "auto, which takes cpu")));
  config.backend = "cuda";
  EXPECT_THAT(DescribeBackend(config, none),
              ElementsAre(Fact("CUDA device", "none: no such thing"),
                          Fact("backend", HasSubstr("no server starts so"))));
  config.backend = "cpu";
  EXPECT_THAT(DescribeBackend(config, none),
              ElementsAre(Fact("CUDA device", "none: no such thing"), Fact("backend", "cpu")));
  // Another device in its place: what is told is what a device says of itself.
  config.backend = "auto";
  const absl::StatusOr<std::unique_ptr<Device>> device = CreateCpuDevice(1);
  ASSERT_TRUE(device.ok());
  const std::vector<MachineFact> facts = DescribeBackend(config, device);
  EXPECT_THAT(facts.front(),
              Fact("CUDA device", AllOf(HasSubstr((*device)->name()), HasSubstr(" free of "))));
  EXPECT_THAT(facts.back(), Fact("backend", "auto, which takes cuda"));
}

TEST_F(MachineTest, Ports) {
  Config config;
  config.listen = "127.0.0.1:0";
  config.metrics_listen = "127.0.0.1:0";
  EXPECT_THAT(DescribePorts(config), ElementsAre(Fact("listen", "127.0.0.1:0 is free"),
                                                 Fact("metrics listen", "127.0.0.1:0 is free")));
  const auto taken =
      HttpServer::Start("127.0.0.1:0", {.metrics = [] { return std::string(); },
                                        .not_ready = [] { return std::string(); },
                                        .not_healthy = [] { return std::string(); }});
  ASSERT_TRUE(taken.ok()) << taken.status();
  config.listen = (*taken)->address();
  config.metrics_listen = "example";
  EXPECT_THAT(DescribePorts(config),
              ElementsAre(Fact("listen", AllOf(HasSubstr(config.listen), HasSubstr("in use"))),
                          Fact("metrics listen", HasSubstr("example"))));
}

// The second finds the first there.
TEST_F(MachineTest, OnePortForTwoThings) {
  std::string address;
  {
    const auto server = HttpServer::Start("127.0.0.1:0", {});
    ASSERT_TRUE(server.ok()) << server.status();
    address = (*server)->address();
  }
  Config config;
  config.listen = config.metrics_listen = address;
  EXPECT_THAT(DescribePorts(config), ElementsAre(Fact("listen", HasSubstr("is free")),
                                                 Fact("metrics listen", HasSubstr("in use"))));
}

TEST_F(MachineTest, Limits) {
  rlimit files;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  rlimit lower = files;
  lower.rlim_cur = 256;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
  Write("/sys/fs/cgroup/pids.max", "4096\n");
  const std::vector<MachineFact> facts = DescribeLimits(root_);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  EXPECT_THAT(facts, ElementsAre(Fact("open files", HasSubstr("(256, which serve raises)")),
                                 Fact("threads", HasSubstr(", 4096 in this container")),
                                 Fact("address space", testing::_)));
  Write("/sys/fs/cgroup/pids.max", "max\n");
  EXPECT_THAT(DescribeLimits(root_)[1], Fact("threads", testing::Not(HasSubstr("container"))));
}

}  // namespace
}  // namespace sirocco
