// What this machine, or the container around this process, lets it use.
#pragma once

#include <cstdint>

namespace sirocco {

// Bytes that can still be had: MemAvailable, and less where the cgroup's limit leaves less.
int64_t AvailableMemory();

// Cores: those that the process may run on, and less where the cgroup's quota is less; at least 1.
int AvailableCores();

}  // namespace sirocco
