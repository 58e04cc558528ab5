#include "server/model/huge_page_heap.h"

#include <malloc.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

namespace sirocco {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr int kTopPad = 128 << 10;  // the C library's own
// Setting one of these ends the C library's own choice of both, so both become what it chooses in
// the end, once a block of 32 MiB was freed: blocks up to there come from heaps, of whose ends
// twice as much may stay free.
constexpr int kMmapThreshold = 32 << 20;
constexpr int kTrimThreshold = 2 * kMmapThreshold;

// Whether the heap has grown.
bool Grow(size_t bytes) {
  if (bytes == 0 || bytes > INT32_MAX) return false;
  mallopt(M_MMAP_THRESHOLD, kMmapThreshold);
  mallopt(M_TRIM_THRESHOLD, INT32_MAX);  // what is free at the heap's end stays there
  mallopt(M_TOP_PAD, static_cast<int>(bytes));
  // More than is free in a heap that has just begun, so that it grows, by the pad too.
  void* const grown = std::malloc(kMmapThreshold / 2);
  mallopt(M_TOP_PAD, kTopPad);
  if (grown == nullptr) return false;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(grown) / kHugePageBytes * kHugePageBytes;
  // Advice about address space that is the heap's; where it is not, nothing happens.
  madvise(reinterpret_cast<void*>(begin + kHugePageBytes), bytes, MADV_HUGEPAGE);
  std::free(grown);
  return true;
}

}  // namespace

HugePageHeap::HugePageHeap(size_t bytes) : made_(Grow(bytes)) {}

HugePageHeap::~HugePageHeap() {
  if (!made_) return;
  mallopt(M_TRIM_THRESHOLD, kTrimThreshold);
  malloc_trim(kTopPad);
}

}  // namespace sirocco
