// Opening the CUDA backend where it is not, or is not it.
#include "kernels/cuda/open.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::Status Opened(const std::string& plugin, int device = 0) {
  CudaOptions options;
  options.plugin = plugin;
  options.device = device;
  return OpenCudaDevice(options).status();
}

TEST(OpenCudaDeviceTest, APathThatIsNotThereIsNamed) {
  const absl::Status status = Opened("/nowhere/libsirocco_cuda.so");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("the CUDA backend"), HasSubstr("/nowhere/libsirocco_cuda.so")));
}

TEST(OpenCudaDeviceTest, WithoutAPluginItSaysWhereOneIsLookedFor) {
  const absl::Status status = Opened("");  // none stands beside this test
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("libsirocco_cuda.so"), HasSubstr("lib/ beside the program")));
}

TEST(OpenCudaDeviceTest, AnotherLibraryIsOfAnotherBuild) {
  const absl::Status status = Opened("libm.so.6");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("libm.so.6"), HasSubstr("another build"), HasSubstr("compiler")));
}

}  // namespace
}  // namespace sirocco
