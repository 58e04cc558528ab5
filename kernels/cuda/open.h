// The CUDA backend as programs see it: libsirocco_cuda.so, opened when it is asked for.
//
// It is opened rather than linked for two reasons. One program serves machines with and without a
// GPU. And libcublasLt.so has 94 KB of thread-local storage: loaded at a program's start, glibc
// takes that from the stack of every thread, and threads with small ones no longer start.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace sirocco {

struct CudaOptions {
  int device = 0;  // as CUDA numbers those that it sees
  // Runs the code path that every GPU from sm_80 on can run, on Hopper too.
  bool portable = false;
  // A row's results are the same bits whatever rows stand beside it, at some cost.
  bool batch_invariant = false;
  // Where the plugin is; empty: lib/ beside the program or beside its folder, then wherever the
  // system looks for libraries.
  std::string plugin;
};

// NOT_FOUND: no plugin. UNAVAILABLE: no driver, or no such device. FAILED_PRECONDITION: a driver, a
// GPU or a plugin that does not fit. Each says what to do. The plugin stays loaded.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(const CudaOptions& options);

}  // namespace sirocco
