#include "kernels/cuda/open.h"

#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/plugin.h"
#include "kernels/cuda/plugin_build.h"

namespace sirocco {
namespace {

constexpr char kName[] = "libsirocco_cuda.so";

std::string ProgramFolder() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  const std::string_view program(path, length < 0 ? 0 : static_cast<size_t>(length));
  return std::string(program.substr(0, program.rfind('/')));
}

// What is opened. The first place that has the plugin must do: another one would not be the one
// that was meant.
std::string Place(const CudaOptions& options) {
  if (!options.plugin.empty()) return options.plugin;
  const std::string folder = ProgramFolder();
  for (const char* where : {"/../lib/", "/lib/"}) {
    std::string place = absl::StrCat(folder, where, kName);
    if (access(place.c_str(), F_OK) == 0) return place;
  }
  return kName;
}

absl::Status NotOpened(const std::string& place, const std::string& error) {
  if (error.find("libcublasLt") != std::string::npos) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the CUDA backend needs cuBLASLt of CUDA 13, which is not installed here: ", error,
        "; install it (Debian and Ubuntu: libcublas-13-0), or name its folder in LD_LIBRARY_PATH"));
  }
  if (place == kName && error.find(kName) != std::string::npos &&
      error.find("No such file") != std::string::npos) {
    return absl::NotFoundError(
        absl::StrCat("no CUDA backend: ", kName,
                     " is neither in lib/ beside the program nor among the system's libraries; a "
                     "build where a CUDA toolkit of 13.0 or newer is found makes it"));
  }
  return absl::NotFoundError(absl::StrCat("the CUDA backend cannot be loaded: ", error));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(const CudaOptions& options) {
  const std::string place = Place(options);
  void* const library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = dlerror();
    return NotOpened(place, error == nullptr ? place : error);
  }
  const auto build =
      reinterpret_cast<decltype(&sirocco_cuda_build)>(dlsym(library, "sirocco_cuda_build"));
  const auto open =
      reinterpret_cast<decltype(&sirocco_cuda_open)>(dlsym(library, "sirocco_cuda_open"));
  if (build == nullptr || open == nullptr || std::string_view(build()) != kPluginBuild) {
    const char* other = build == nullptr ? "unknown" : build();
    absl::Status status = absl::FailedPreconditionError(
        absl::StrCat("the CUDA backend at ", place, " is of another build (", other,
                     ") than this program (", kPluginBuild, "); install both from one build"));
    dlclose(library);
    return status;
  }
  absl::StatusOr<std::unique_ptr<Device>> device =
      absl::InternalError("the CUDA backend is silent");
  open(&options, &device);
  return device;
}

}  // namespace sirocco
