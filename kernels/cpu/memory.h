// Memory of the CPU backend: anonymous pages, zero until they are written.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace sirocco::cpu {

// Bytes that can be written before the machine, or this process's control group, runs out.
size_t AvailableBytes();
// Bytes that there are, used or not.
size_t TotalBytes();

// `counters` is updated by the calls and by Reservation::Map, and must outlive those.
// RESOURCE_EXHAUSTED names the use, the bytes asked and the bytes available. A mapping that the
// kernel would grant but never back (overcommit) is refused here, not by a kill later.
absl::StatusOr<std::unique_ptr<Buffer>> AllocatePages(size_t bytes, MemoryUse use,
                                                      DeviceCounters& counters);
absl::StatusOr<std::unique_ptr<Reservation>> ReservePages(size_t bytes, MemoryUse use,
                                                          DeviceCounters& counters);

}  // namespace sirocco::cpu
