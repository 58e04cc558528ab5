#include "server/commands/perplexity.h"

#include <poll.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/commands/engine_batch.h"

namespace sirocco {
namespace {

constexpr int kLongestWaitMs = 250;
// Enough that none waits for this thread; a window fills a step, or many.
constexpr size_t kMaxOpen = 8;

// The windows of a text, from their submission to their sums.
class WindowRun {
 public:
  WindowRun(Engine& engine, const std::vector<int32_t>& ids, size_t context, size_t stride)
      : ids_(ids), context_(context), stride_(stride), batch_(engine) {
    status_ = batch_.status();
    next_ = WindowAt(0, ids.size(), context, stride);
  }

  bool finished() const { return !next_ && batch_.open() == 0; }
  int fd() const { return batch_.fd(); }
  const absl::Status& status() const { return status_; }

  // Submits what there is room for.
  void Begin() {
    while (status_.ok() && next_ && batch_.open() < kMaxOpen) {
      Request request;
      request.id = absl::StrCat("window ", sums_.size());
      request.prompt.assign(ids_.begin() + static_cast<ptrdiff_t>(next_->begin),
                            ids_.begin() + static_cast<ptrdiff_t>(next_->end));
      request.logprobs = LogprobOptions{.top = 0, .prompt = true};
      request.max_new_tokens = 0;
      const absl::Status submitted = batch_.Submit(
          std::move(request), [this, number = sums_.size(), window = *next_](StreamUpdate update) {
            Take(number, window, update);
          });
      // A full queue empties; what can never be had is an error.
      if (absl::IsResourceExhausted(submitted) && batch_.open() > 0) return;
      if (!submitted.ok()) {
        status_ = submitted;
        return;
      }
      sums_.push_back(0);
      next_ = WindowAt(sums_.size(), ids_.size(), context_, stride_);
    }
  }

  void Deliver() { batch_.Deliver(); }

  Perplexity Result() const {
    Perplexity result;
    // In the order of windows, so that the sum is always the same.
    for (const double sum : sums_) result.log_likelihood += sum;
    result.scored = scored_;
    result.windows = sums_.size();
    return result;
  }

 private:
  void Take(size_t number, const ScoreWindow& window, const StreamUpdate& update) {
    if (update.done && !update.status.ok() && status_.ok()) status_ = update.status;
    // All scores of a prompt come at once; its first id has none.
    for (size_t i = window.first_scored - window.begin; i < update.prompt_logprobs.size(); ++i) {
      sums_[number] += update.prompt_logprobs[i].logprob;
      ++scored_;
    }
  }

  const std::vector<int32_t>& ids_;
  const size_t context_;
  const size_t stride_;
  EngineBatch batch_;
  std::optional<ScoreWindow> next_;
  std::vector<double> sums_;  // of the windows submitted
  size_t scored_ = 0;
  absl::Status status_;
};

}  // namespace

std::optional<ScoreWindow> WindowAt(size_t number, size_t tokens, size_t context, size_t stride) {
  const size_t begin = number * stride;
  // What the window before this one ended with.
  const size_t first_scored = number == 0 ? 1 : begin - stride + context;
  if (first_scored >= tokens) return std::nullopt;
  return ScoreWindow{begin, std::min(begin + context, tokens), first_scored};
}

double Perplexity::value() const { return std::exp(-log_likelihood / static_cast<double>(scored)); }

absl::StatusOr<Perplexity> ScoreIds(Engine& engine, const std::vector<int32_t>& ids, size_t context,
                                    size_t stride, int stop_fd,
                                    const std::function<void()>& progress) {
  WindowRun run(engine, ids, context, stride);
  for (;;) {
    run.Begin();
    progress();
    if (!run.status().ok()) return run.status();
    if (run.finished()) return run.Result();
    pollfd fds[] = {{run.fd(), POLLIN, 0}, {stop_fd, POLLIN, 0}};
    if (poll(fds, 2, kLongestWaitMs) > 0 && fds[1].revents != 0) {
      return absl::CancelledError("stopped before all was scored");
    }
    run.Deliver();
  }
}

}  // namespace sirocco
