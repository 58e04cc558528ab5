#include "server/commands/line_run.h"

#include <google/protobuf/util/json_util.h>
#include <poll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/to_request.h"

namespace sirocco {
namespace {

constexpr std::chrono::milliseconds kLongestWait{250};
// Written at once; what is done at the same time goes together.
constexpr size_t kWriteBytes = 1u << 20;

absl::StatusOr<Request> ParseRequest(const std::string& line, const ModelFacts& facts) {
  v1::GenerateRequest message;
  const auto parsed = google::protobuf::util::JsonStringToMessage(line, &message);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the line is no GenerateRequest: ", std::string(parsed.message())));
  }
  return ToRequest(message, facts);
}

}  // namespace

LineRun::LineRun(Engine& engine, const ModelFacts& facts, int input_fd, AnswersFile& answers,
                 const LineRunOptions& options)
    : engine_(engine),
      facts_(facts),
      answers_(answers),
      options_(options),
      lines_(input_fd),
      input_fd_(input_fd),
      batch_(engine),
      to_skip_(answers.lines()) {
  progress_.failed = answers.failed();
}

absl::Status LineRun::Run(const std::function<void(const LineRunProgress&)>& progress) {
  if (!batch_.status().ok()) return batch_.status();
  for (;;) {
    absl::Status status = Begin();
    // Streams end with it, and with them lines that can be answered another time.
    if (status.ok()) status = engine_.fault();
    if (status.ok()) status = WriteDone();
    if (!status.ok()) return status;
    progress(progress_);
    if (finished() || (stopped() && jobs_.empty()) || out_of_time()) return absl::OkStatus();
    Wait();
    batch_.Deliver();
  }
}

bool LineRun::HasRoom() const {
  // One batch that runs, and one that waits in the engine for its lanes.
  return !next_request_ && held_bytes_ < options_.max_held_bytes &&
         batch_.open() < 2 * static_cast<size_t>(facts_.max_batch_size);
}

absl::Status LineRun::Begin() {
  if (next_request_ && !Start(jobs_.back())) return absl::OkStatus();
  starving_ = false;
  while (!input_ended_ && !stopped() && HasRoom()) {
    std::string line;
    absl::Status status;
    switch (lines_.Next(&line, &status)) {
      case LineReader::Got::kNothing:
        starving_ = true;
        return absl::OkStatus();
      case LineReader::Got::kEnd:
        input_ended_ = true;
        if (!status.ok() || to_skip_ == 0) return status;
        return absl::InvalidArgumentError(absl::StrCat("the input has ", progress_.lines,
                                                       " lines, and there are ", answers_.lines(),
                                                       " answers: they are another input's"));
      case LineReader::Got::kLine:
        break;
    }
    if (to_skip_ > 0) {
      --to_skip_;
      ++progress_.lines;
      progress_.consumed_bytes = lines_.consumed();
      continue;
    }
    Job& job = jobs_.emplace_back();
    job.consumed_bytes = lines_.consumed();
    absl::StatusOr<Request> request = status.ok() ? ParseRequest(line, facts_) : status;
    if (!request.ok()) {
      End(job, request.status());
      continue;
    }
    job.response = std::make_unique<ResponseMaker>(request->id, facts_.tokenizer, request->n);
    next_request_ = *std::move(request);
    if (!Start(job)) break;
  }
  return absl::OkStatus();
}

bool LineRun::Start(Job& job) {
  const absl::Status status = batch_.Submit(
      *next_request_, [this, &job](StreamUpdate update) { Take(job, std::move(update)); });
  // A full queue empties as requests end; where none is left, this one can never be had.
  if (absl::IsResourceExhausted(status) && batch_.open() > 0) return false;
  next_request_.reset();
  if (!status.ok()) End(job, status);
  return true;
}

void LineRun::Take(Job& job, StreamUpdate update) {
  const bool done = update.done;
  const absl::Status status = update.status;
  job.response->Add(std::move(update));
  if (done) End(job, status);
}

void LineRun::End(Job& job, const absl::Status& status) {
  absl::Status ended = status;
  if (ended.ok()) {
    const auto converted =
        google::protobuf::util::MessageToJsonString(job.response->Take(), &job.answer);
    if (!converted.ok()) ended = absl::InternalError(converted.ToString());
  }
  if (!ended.ok()) job.answer = ErrorLine(ended);
  job.answer.push_back('\n');
  job.failed = !ended.ok();
  job.response.reset();
  job.done = true;
  held_bytes_ += sizeof(Job) + job.answer.size();
}

absl::Status LineRun::WriteDone() {
  std::string text;
  while (!jobs_.empty() && jobs_.front().done) {
    Job& job = jobs_.front();
    held_bytes_ -= sizeof(Job) + job.answer.size();
    text += job.answer;
    ++progress_.lines;
    progress_.failed += job.failed ? 1 : 0;
    progress_.consumed_bytes = job.consumed_bytes;
    jobs_.pop_front();
    if (text.size() < kWriteBytes) continue;
    if (absl::Status status = answers_.Write(text); !status.ok()) return status;
    text.clear();
  }
  return answers_.Write(text);
}

void LineRun::Wait() {
  auto wait = kLongestWait;
  if (stopped_until_) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(*stopped_until_ - Clock::now());
    wait = std::clamp(left + std::chrono::milliseconds(1), std::chrono::milliseconds(0), wait);
  }
  // A negative descriptor is left out.
  pollfd fds[] = {{batch_.fd(), POLLIN, 0},
                  {starving_ && !stopped() ? input_fd_ : -1, POLLIN, 0},
                  {stopped() ? -1 : options_.stop_fd, POLLIN, 0}};
  if (poll(fds, 3, static_cast<int>(wait.count())) <= 0) return;
  if (fds[1].revents != 0) lines_.Fill();
  if (fds[2].revents != 0) stopped_until_ = Clock::now() + options_.drain_timeout;
}

}  // namespace sirocco
