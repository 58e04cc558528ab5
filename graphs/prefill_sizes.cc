#include "graphs/prefill_sizes.h"

#include <algorithm>

#include "graphs/mode.h"

namespace sirocco {
namespace {

// Up to the second, products read their weights once whatever the rows (CUDA: panels of 32 and of
// 64 rows), so filling up costs next to nothing. Beyond, a row is 2 to 5 us of a model of 1B, so
// sizes lie as close as their memory allows; further apart from kDense on, where steps are read
// full and only the last of many is filled up.
constexpr int32_t kFirst = 32;
constexpr int32_t kStep = 64;
constexpr int32_t kDense = 512;
// With more rows the device takes longer than the host does to launch them.
constexpr int32_t kLast = 1024;

int32_t After(int32_t size) {
  if (size < kStep) return kStep;
  return size + (size < kDense ? kStep : 2 * kStep);
}

}  // namespace

PrefillSizes::PrefillSizes(const ExecutorOptions& options) : max_length_(options.max_length) {
  if (!options.fill_prefill || options.mode == Mode::kEager || options.expert_trace.impose) {
    return;
  }
  const int32_t last = std::min(kLast, options.prefill_chunk_size);
  for (int32_t size = kFirst; size < last; size = After(size)) {
    sizes_.push_back(size);
  }
  sizes_.push_back(last);
  int32_t before = 0;
  for (const int32_t size : sizes_) {
    most_filling_ = std::max(most_filling_, size - before - 1);
    before = size;
  }
  most_filling_ = std::min(most_filling_, max_length_);
}

int32_t PrefillSizes::Of(int32_t rows) const {
  const auto size = std::lower_bound(sizes_.begin(), sizes_.end(), rows);
  return size == sizes_.end() || *size - rows > max_length_ ? rows : *size;
}

int32_t LanesOnDevice(const ExecutorOptions& options) {
  return options.max_batch_size + (PrefillSizes(options).all().empty() ? 0 : 1);
}

int32_t FillingBlocks(const ExecutorOptions& options) {
  const int32_t rows = PrefillSizes(options).most_filling();
  return (rows + options.block_size - 1) / options.block_size;
}

}  // namespace sirocco
