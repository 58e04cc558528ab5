// The numbers of rows that prefill steps are computed with where they can be replayed: a recording
// is of one number, so a step is filled up to the next one of these.
//
// What fills up is a beginning of token 0 in a lane of its own, which no sequence gets, with blocks
// of its own behind those that sequences have. So no operation needs to know of it, and nothing
// that a sequence reads is written. Modes with graphs and those without fill up alike: the number
// of rows chooses kernels, and with them the order of sums.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graphs/executor.h"

namespace sirocco {

class PrefillSizes {
 public:
  // None where the options do not ask for them, nor in mode eager, which is no graph's twin, nor
  // where experts are imposed, which rows that fill up have none of.
  explicit PrefillSizes(const ExecutorOptions& options);

  // From the least on.
  std::span<const int32_t> all() const { return sizes_; }
  // Rows that a step of `rows` is computed with: `rows` where none of the sizes is for it.
  int32_t Of(int32_t rows) const;
  // Rows that fill a step up, at most.
  int32_t most_filling() const { return most_filling_; }

 private:
  std::vector<int32_t> sizes_;
  int32_t max_length_;
  int32_t most_filling_ = 0;
};

// Lanes on the device: max_batch_size, and behind them the one that fills up, where there is one.
int32_t LanesOnDevice(const ExecutorOptions& options);

// KV blocks of each layer group that the filling lane has, from kv_blocks on.
int32_t FillingBlocks(const ExecutorOptions& options);

}  // namespace sirocco
