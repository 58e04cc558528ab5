// How probable a model finds a text that may be longer than what it reads at once.
//
// The text's ids are read in windows of `context` ids that begin `stride` apart. Each id but the
// first is scored once: in the first window that has it, and so after at least context - stride
// others, but for the beginning of the text. This is the strided evaluation that transformers'
// documentation describes ("Perplexity of fixed-length models"), without its rounding of how many
// ids were scored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace sirocco {

struct ScoreWindow {
  size_t begin, end;    // of the text's ids
  size_t first_scored;  // begin < first_scored < end
};

// The window of this number; none behind the last. `tokens` >= 2; 1 <= stride < context.
std::optional<ScoreWindow> WindowAt(size_t number, size_t tokens, size_t context, size_t stride);

struct Perplexity {
  double log_likelihood = 0;  // sum of the natural logarithms
  size_t scored = 0;          // ids
  size_t windows = 0;

  double value() const;  // exp(-log_likelihood / scored)
};

// Scores the windows on the engine, many at once; `stop_fd`, where it becomes readable, ends it
// with CANCELLED. Calls `progress` four times a second or more often. Otherwise the engine's
// errors. `ids` as WindowAt wants them, and `context` at most the engine's max_length.
absl::StatusOr<Perplexity> ScoreIds(Engine& engine, const std::vector<int32_t>& ids, size_t context,
                                    size_t stride, int stop_fd,
                                    const std::function<void()>& progress);

}  // namespace sirocco
