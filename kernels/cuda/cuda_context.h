// One GPU and the stream on which all of a device's work is ordered: what everything in the backend
// that calls CUDA shares.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sirocco::cuda {

// INTERNAL with the call, the error's name and its text; OK for cudaSuccess.
absl::Status StatusOf(const char* call, cudaError_t error);

class CudaContext {
 public:
  // UNAVAILABLE: no driver, or no such device; FAILED_PRECONDITION: a driver or GPU that is too
  // old.
  static absl::StatusOr<std::unique_ptr<CudaContext>> Create(int ordinal);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  int ordinal() const { return ordinal_; }
  cudaStream_t stream() const { return stream_; }
  int multiprocessors() const { return multiprocessors_; }
  int compute_capability() const { return compute_capability_; }  // 90: 9.0
  const std::string& name() const { return name_; }
  // The device reaches memory that this process pins where it lies at the host's address.
  bool same_address_where_pinned() const { return same_address_where_pinned_; }

  // Makes this the calling thread's device. After a fault, the fault: nothing more is asked of the
  // device, whose state nobody knows. FAILED_PRECONDITION while recording.
  absl::Status Enter();
  // The same for what a recording can hold.
  absl::Status EnterToEnqueue();
  // The stream is captured (cuda_graph.h).
  bool recording() const { return recording_; }
  void set_recording(bool recording) { recording_ = recording; }
  // StatusOf; a fault is kept.
  absl::Status Check(const char* call, cudaError_t error);
  // Keeps the first fault, and returns this one.
  absl::Status Fail(absl::Status fault);
  // Ends all work of the stream.
  absl::Status Synchronize();

 private:
  explicit CudaContext(int ordinal) : ordinal_(ordinal) {}

  int ordinal_;
  cudaStream_t stream_ = nullptr;
  int multiprocessors_ = 0;
  int compute_capability_ = 0;
  std::string name_;
  bool same_address_where_pinned_ = false;
  bool recording_ = false;
  absl::Status fault_;
};

}  // namespace sirocco::cuda
