// Answers JSON lines of GenerateRequest by an engine: how `sirocco run` works.
//
// As many requests are open as keep every batch full, however long some of them take: a line whose
// answer is done waits for those before it as text. What waits so is bounded, and so is what is
// read ahead; so the number of lines is not.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "server/api/to_response.h"
#include "server/commands/answers_file.h"
#include "server/commands/engine_batch.h"
#include "server/commands/json_lines.h"
#include "server/model/served_model.h"

namespace sirocco {

struct LineRunOptions {
  // Readable from the moment on in which no more is to be begun; -1: never.
  int stop_fd = -1;
  // After that, so long may what was begun take.
  std::chrono::milliseconds drain_timeout{30'000};
  // Of answers that wait for those before them.
  size_t max_held_bytes = 256u << 20;
};

struct LineRunProgress {
  uint64_t lines = 0;           // answered and written
  uint64_t failed = 0;          // of them, by an error
  uint64_t consumed_bytes = 0;  // of the input, up to the last line written
};

// One thread.
class LineRun {
 public:
  // `facts` are those of the engine's model. All outlive the run. The first lines, which `answers`
  // holds already, are skipped.
  LineRun(Engine& engine, const ModelFacts& facts, int input_fd, AnswersFile& answers,
          const LineRunOptions& options);

  // Until all lines are answered, or it was stopped. A line that is no valid request is answered by
  // an error, and the rest goes on. Calls `progress` after each thing that happened, and four times
  // a second. INVALID_ARGUMENT: the input has fewer lines than the answers. UNAVAILABLE: input or
  // output failed. The engine's fault, where the device failed: such lines are not answered, so
  // that they can be later.
  absl::Status Run(const std::function<void(const LineRunProgress&)>& progress);

  const LineRunProgress& progress() const { return progress_; }
  // All lines were read and answered.
  bool finished() const { return input_ended_ && jobs_.empty(); }

 private:
  // A line from its reading to its writing.
  struct Job {
    uint64_t consumed_bytes = 0;  // of the input, with this line
    bool done = false;
    bool failed = false;
    std::string answer;                       // once done
    std::unique_ptr<ResponseMaker> response;  // until then
  };

  // Reads and begins as much as there is room for.
  absl::Status Begin();
  bool HasRoom() const;
  // Begins the line that was read; false: the engine's queue is full.
  bool Start(Job& job);
  void Take(Job& job, StreamUpdate update);
  void End(Job& job, const absl::Status& status);
  absl::Status WriteDone();
  void Wait();
  bool stopped() const { return stopped_until_.has_value(); }
  bool out_of_time() const { return stopped() && Clock::now() >= *stopped_until_; }

  Engine& engine_;
  const ModelFacts& facts_;
  AnswersFile& answers_;
  const LineRunOptions options_;
  LineReader lines_;
  const int input_fd_;
  EngineBatch batch_;
  std::deque<Job> jobs_;                 // in the order of lines; sinks point to them
  std::optional<Request> next_request_;  // of the last job: not submitted yet
  uint64_t to_skip_;
  size_t held_bytes_ = 0;
  bool starving_ = false;  // the next line has not come yet
  bool input_ended_ = false;
  std::optional<Clock::time_point> stopped_until_;
  LineRunProgress progress_;
};

}  // namespace sirocco
