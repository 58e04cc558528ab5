// sirocco run: answers JSON lines of GenerateRequest without a server, many at once, in their
// order.
#include <google/protobuf/util/json_util.h>

#include <condition_variable>
#include <deque>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/to_request.h"
#include "server/api/to_response.h"
#include "server/commands/commands.h"
#include "server/commands/config_flags.h"
#include "server/commands/json_lines.h"
#include "server/commands/report.h"
#include "server/log/log.h"
#include "server/metrics/metrics.h"
#include "server/model/load.h"

namespace sirocco {
namespace {

constexpr size_t kMaxLineBytes = 64u << 20;

// What the delivery threads ring when any stream has something.
class Bell {
 public:
  void Ring() {
    std::lock_guard lock(mutex_);
    ++rings_;
    changed_.notify_all();
  }
  uint64_t rings() {
    std::lock_guard lock(mutex_);
    return rings_;
  }
  // Returns once it has rung more than `seen` times.
  void WaitBeyond(uint64_t seen) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return rings_ > seen; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t rings_ = 0;
};

// One line that is being answered, or has failed at once.
struct Job {
  absl::Status status;
  std::shared_ptr<TokenStream> stream;
  std::unique_ptr<ResponseMaker> response;
};

class Runner {
 public:
  explicit Runner(const ServedModel& model) : model_(model) {}

  // The exit status: 1 if a line failed.
  int Run(std::istream& in) {
    std::string text;
    absl::Status status;
    while (NextLine(in, kMaxLineBytes, &text, &status)) {
      // Twice the batch keeps it full while the oldest answer is written.
      while (jobs_.size() >= 2 * static_cast<size_t>(model_.facts.max_batch_size)) FinishOldest();
      if (!std::cout.good()) return Fail(absl::UnavailableError("standard output is closed"));
      jobs_.push_back(status.ok() ? Start(text) : Failed(status));
    }
    while (!jobs_.empty()) FinishOldest();
    std::cout.flush();
    return exit_status_;
  }

 private:
  static Job Failed(absl::Status status) { return {std::move(status), nullptr, nullptr}; }

  Job Start(const std::string& text) {
    v1::GenerateRequest message;
    const auto parsed = google::protobuf::util::JsonStringToMessage(text, &message);
    if (!parsed.ok()) {
      return Failed(absl::InvalidArgumentError(
          absl::StrCat("the line is no GenerateRequest: ", std::string(parsed.message()))));
    }
    absl::StatusOr<Request> request = ToRequest(message, model_.facts);
    if (!request.ok()) return Failed(request.status());
    Job job;
    job.response = std::make_unique<ResponseMaker>(request->id, model_.tokenizer.get(), request->n);
    for (;;) {
      absl::StatusOr<std::shared_ptr<TokenStream>> stream =
          model_.engine->Submit(*request, [this] { bell_.Ring(); });
      if (stream.ok()) {
        job.stream = *std::move(stream);
        return job;
      }
      // A full queue empties as the jobs before this one end.
      if (!absl::IsResourceExhausted(stream.status()) || jobs_.empty()) {
        return Failed(stream.status());
      }
      FinishOldest();
    }
  }

  void FinishOldest() {
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    if (job.status.ok()) job.status = Await(job);
    std::string line;
    if (job.status.ok()) {
      const auto converted =
          google::protobuf::util::MessageToJsonString(job.response->Take(), &line);
      if (!converted.ok()) job.status = absl::InternalError(converted.ToString());
    }
    if (!job.status.ok()) {
      exit_status_ = 1;
      line = ErrorLine(job.status);
    }
    std::cout << line << '\n';
  }

  absl::Status Await(Job& job) {
    for (;;) {
      const uint64_t seen = bell_.rings();
      StreamUpdate update = job.stream->Take();
      const bool done = update.done;
      const absl::Status status = update.status;
      job.response->Add(std::move(update));
      if (done) return status;
      bell_.WaitBeyond(seen);
    }
  }

  const ServedModel& model_;
  Bell bell_;
  std::deque<Job> jobs_;
  int exit_status_ = 0;
};

int RunLines(const ConfigFlags& flags, std::istream& in) {
  absl::StatusOr<Config> config = flags.Load();
  if (!config.ok()) return Fail(config.status());
  ConfigureLog(config->log_level, config->log_format);
  // Outlives the model: its engine tells it of every event.
  Metrics metrics(/*vllm_names=*/false);
  absl::StatusOr<std::unique_ptr<ServedModel>> model = OpenServedModel(*config);
  if (!model.ok()) return Fail(model.status());
  metrics.SetModel((*model)->facts);
  absl::Status started;
  {
    ProgressBar bar;
    started = StartServedModel(
        *config, &metrics,
        [&](std::string_view phase, uint64_t done, uint64_t total) {
          bar.Update(phase, done, total);
        },
        **model);
  }
  if (!started.ok()) return Fail(started);
  return Runner(**model).Run(in);
}

}  // namespace

void AddRun(CLI::App& app, int& exit_status) {
  auto input = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "run",
      "Answer requests without a server: JSON lines of GenerateRequest (proto3 JSON) become lines\n"
      "of GenerateResponse, in their order, e.g. {\"prompt\": \"Hello\", \"maxNewTokens\": 8}.");
  command->add_option("INPUT", *input, "a file of JSON lines; default: standard input");
  auto flags = ConfigFlags::AddTo(*command);
  command->callback([input, flags, &exit_status] {
    if (input->empty()) {
      exit_status = RunLines(*flags, std::cin);
      return;
    }
    std::ifstream in(*input, std::ios::binary);
    exit_status = in ? RunLines(*flags, in)
                     : Fail(absl::NotFoundError(absl::StrCat(*input, ": cannot be read")));
  });
}

}  // namespace sirocco
