// File descriptors, and what to say where there are none left.
#pragma once

#include "absl/status/status.h"

namespace sirocco {

// An eventfd that does not block; the caller closes it. -1: `status` says why, RESOURCE_EXHAUSTED.
int OpenEventFd(absl::Status& status);

// That a descriptor could not be had, with errno: RESOURCE_EXHAUSTED.
absl::Status NoDescriptor(const char* what);

// Whether so many more can be had at this moment; else as NoDescriptor.
absl::Status NeedDescriptors(int count);

// What gRPC takes before it has a connection: without them it aborts.
inline constexpr int kGrpcDescriptors = 16;

}  // namespace sirocco
