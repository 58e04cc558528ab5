// How fast all threads together read memory.
#pragma once

#include <cstddef>

#include "kernels/cpu/thread_pool.h"

namespace sirocco::cpu {

// Bytes a second, of the better of two readers the median of five readings of `memory`. It is
// written first, so that every page is a page of its own. Larger than the caches, it is read from
// memory.
double ReadBandwidth(ThreadPool& pool, void* memory, size_t bytes);

}  // namespace sirocco::cpu
