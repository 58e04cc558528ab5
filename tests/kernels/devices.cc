#include "tests/kernels/devices.h"

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_device.h"

namespace sirocco {

std::vector<DeviceCase> Devices() {
  return {
      {"cpu_1_thread", [] { return CreateCpuDevice(1); }, DType::kFloat32, true},
      {"cpu_3_threads", [] { return CreateCpuDevice(3); }, DType::kFloat32, true},
  };
}

std::vector<TypedCase> TypedCases() {
  std::vector<TypedCase> cases;
  for (const DeviceCase& device : Devices()) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) cases.push_back({device, dtype});
  }
  return cases;
}

std::string CaseName(const DeviceCase& device) { return device.name; }

std::string CaseName(const TypedCase& typed) {
  return absl::StrCat(typed.device.name, "_", std::string(NameOf(typed.dtype)));
}

}  // namespace sirocco
