#include "kernels/cuda/cuda_context.h"

#include "absl/strings/str_cat.h"

namespace sirocco::cuda {
namespace {

constexpr int kMinDriver = 13000;
constexpr int kMinComputeCapability = 80;

// A thread's current device, as this library has set it.
thread_local int current_ordinal = -1;

std::string Version(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

absl::Status CheckDriver() {
  int driver = 0;
  if (absl::Status status = StatusOf("cudaDriverGetVersion", cudaDriverGetVersion(&driver));
      !status.ok()) {
    return status;
  }
  if (driver == 0) {
    return absl::UnavailableError(
        "no NVIDIA driver (libcuda.so.1) is loaded here; install it, or run the container with "
        "access to the GPU");
  }
  if (driver < kMinDriver) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver here serves CUDA ", Version(driver), ", and CUDA ",
                     Version(kMinDriver), " is needed: driver 580 or newer"));
  }
  return absl::OkStatus();
}

absl::Status CheckOrdinal(int ordinal) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && devices == 0)) {
    cudaGetLastError();  // not to be found by a later call
    return absl::UnavailableError(
        "no CUDA device is visible here; CUDA_VISIBLE_DEVICES may hide it, or the container lacks "
        "access to it");
  }
  if (absl::Status status = StatusOf("cudaGetDeviceCount", error); !status.ok()) return status;
  if (ordinal < 0 || ordinal >= devices) {
    return absl::UnavailableError(
        absl::StrCat("no CUDA device ", ordinal, "; visible here are 0 ", "to ", devices - 1));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status StatusOf(const char* call, cudaError_t error) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // told here, so that no later call finds it
  return absl::InternalError(
      absl::StrCat(call, ": ", cudaGetErrorName(error), " (", cudaGetErrorString(error), ")"));
}

absl::StatusOr<std::unique_ptr<CudaContext>> CudaContext::Create(int ordinal) {
  absl::Status status = CheckDriver();
  if (status.ok()) status = CheckOrdinal(ordinal);
  if (!status.ok()) return status;
  std::unique_ptr<CudaContext> context(new CudaContext(ordinal));
  status = context->Enter();
  cudaDeviceProp properties;
  if (status.ok()) {
    status =
        context->Check("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, ordinal));
  }
  if (!status.ok()) return status;
  context->name_ = properties.name;
  context->multiprocessors_ = properties.multiProcessorCount;
  context->compute_capability_ = properties.major * 10 + properties.minor;
  context->same_address_where_pinned_ = properties.canUseHostPointerForRegisteredMem != 0;
  if (context->compute_capability_ < kMinComputeCapability) {
    return absl::FailedPreconditionError(absl::StrCat(context->name_, " has compute capability ",
                                                      properties.major, ".", properties.minor,
                                                      "; 8.0 (Ampere) or newer is needed"));
  }
  status = context->Check("cudaStreamCreateWithFlags",
                          cudaStreamCreateWithFlags(&context->stream_, cudaStreamNonBlocking));
  if (!status.ok()) return status;
  return context;
}

CudaContext::~CudaContext() {
  if (stream_ == nullptr) return;
  cudaSetDevice(ordinal_);
  current_ordinal = ordinal_;
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

absl::Status CudaContext::Enter() {
  if (recording_ && fault_.ok()) {
    return absl::FailedPreconditionError(
        "while a recording is under way nothing can be allocated, copied, launched or waited for");
  }
  return EnterToEnqueue();
}

absl::Status CudaContext::EnterToEnqueue() {
  if (!fault_.ok()) return fault_;
  if (current_ordinal == ordinal_) return absl::OkStatus();
  if (absl::Status status = Check("cudaSetDevice", cudaSetDevice(ordinal_)); !status.ok()) {
    return status;
  }
  current_ordinal = ordinal_;
  return absl::OkStatus();
}

absl::Status CudaContext::Check(const char* call, cudaError_t error) {
  return error == cudaSuccess ? absl::OkStatus() : Fail(StatusOf(call, error));
}

absl::Status CudaContext::Fail(absl::Status fault) {
  if (fault_.ok()) fault_ = fault;
  return fault;
}

absl::Status CudaContext::Synchronize() {
  if (absl::Status status = Enter(); !status.ok()) return status;
  return Check("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
}

}  // namespace sirocco::cuda
