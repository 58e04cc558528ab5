// Room in the heap, in huge pages, for what a start is about to ask for.
#pragma once

#include <cstddef>

namespace sirocco {

// What graphs may take of this process's memory. The CUDA driver keeps some 12 KiB of it for each
// node: of gemma3-1b's 256 graphs with 46,000 nodes 550 MiB, of llama3.1-8b's with 61,000 730.
constexpr size_t kGraphHeapBytes = size_t{1} << 30;

// As long as it lives, up to so many bytes more of the heap are in pages of 2 MiB, where the system
// has them (transparent_hugepage: madvise or always): pages of 4 KiB, each touched a first time,
// are an eighth to a quarter of what making the graphs takes. Only address space is taken at once.
// On the process's first thread, whose heap that is: malloc gives others arenas of their own.
class HugePageHeap {
 public:
  // 0: nothing is done. Where there is no such address space the heap grows as it would.
  explicit HugePageHeap(size_t bytes);
  // What was not used goes back.
  ~HugePageHeap();
  HugePageHeap(const HugePageHeap&) = delete;
  HugePageHeap& operator=(const HugePageHeap&) = delete;

 private:
  const bool made_;
};

}  // namespace sirocco
