#include "tests/kernels/devices.h"

#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/open.h"

namespace sirocco {
namespace {

// Under Bazel the plugin is a test's data; elsewhere it stands beside the program.
std::string PluginPath() {
  const char* runfiles = std::getenv("TEST_SRCDIR");
  const char* workspace = std::getenv("TEST_WORKSPACE");
  if (runfiles == nullptr || workspace == nullptr) return "";
  std::string path = absl::StrCat(runfiles, "/", workspace, "/kernels/cuda/libsirocco_cuda.so");
  return access(path.c_str(), R_OK) == 0 ? path : "";
}

absl::StatusOr<std::unique_ptr<Device>> Cuda(bool portable, bool batch_invariant = false) {
  CudaOptions options;
  options.portable = portable;
  options.batch_invariant = batch_invariant;
  options.plugin = PluginPath();
  return OpenCudaDevice(options);
}

// Whether there is a GPU to test. SIROCCO_TEST_CUDA=required: it must be, so that a machine for GPU
// tests cannot pass by testing nothing.
bool HasCuda() {
  static const bool has_cuda = [] {
    const absl::Status status = Cuda(false).status();
    if (status.ok()) return true;
    std::cerr << "without CUDA: " << status << std::endl;
    const char* asked = std::getenv("SIROCCO_TEST_CUDA");
    if (asked != nullptr && std::string_view(asked) == "required") std::abort();
    return false;
  }();
  return has_cuda;
}

}  // namespace

std::vector<DeviceCase> Devices() {
  std::vector<DeviceCase> devices = {
      {"cpu_1_thread", [] { return CreateCpuDevice(1); }, DType::kFloat32, true},
      {"cpu_3_threads", [] { return CreateCpuDevice(3); }, DType::kFloat32, true},
  };
  if (!HasCuda()) return devices;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    const std::string name(NameOf(dtype));
    devices.push_back({"cuda_" + name, [] { return Cuda(false); }, dtype, false});
    devices.push_back({"cuda_portable_" + name, [] { return Cuda(true); }, dtype, false});
    devices.push_back(
        {"cuda_invariant_" + name, [] { return Cuda(false, true); }, dtype, false, true});
  }
  devices.push_back({"cuda_portable_invariant_bfloat16", [] { return Cuda(true, true); },
                     DType::kBFloat16, false, true});
  return devices;
}

std::vector<TypedCase> TypedCases() {
  std::vector<TypedCase> cases;
  for (const DeviceCase& device : Devices()) {
    if (device.name.rfind("cuda", 0) == 0) {
      cases.push_back({device, device.activations});  // there the weights' type is everything's
      continue;
    }
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) cases.push_back({device, dtype});
  }
  return cases;
}

std::vector<TypedCase> BatchInvariantCases() {
  std::vector<TypedCase> cases;
  for (const auto& all : {TypedCases(), Float8Cases()}) {
    for (const TypedCase& typed : all) {
      if (typed.device.batch_invariant) cases.push_back(typed);
    }
  }
  return cases;
}

std::vector<TypedCase> Float8Cases() {
  std::vector<TypedCase> cases;
  for (const DeviceCase& device : Devices()) {
    if (device.name == "cpu_1_thread") continue;  // nothing new, and slow
    cases.push_back({device, device.activations, DType::kFloat8});
  }
  return cases;
}

std::vector<TypedCase> BlockCases() {
  std::vector<TypedCase> cases;
  for (const DeviceCase& device : Devices()) {
    for (const DType dtype : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
      if (device.name.rfind("cpu", 0) == 0) cases.push_back({device, dtype});
    }
  }
  return cases;
}

std::string CaseName(const DeviceCase& device) { return device.name; }

std::string CaseName(const TypedCase& typed) {
  const std::string kv =
      typed.kv == typed.dtype ? "" : absl::StrCat("_kv_", std::string(NameOf(typed.kv)));
  if (typed.device.name.rfind("cuda", 0) == 0) return typed.device.name + kv;
  return absl::StrCat(typed.device.name, "_", std::string(NameOf(typed.dtype)), kv);
}

}  // namespace sirocco
