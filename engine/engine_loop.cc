#include "engine/engine_loop.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "graphs/prefill_sizes.h"

namespace sirocco {
namespace {

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

std::optional<PrefixHasher> MakeHasher(const Executor& executor, const EngineOptions& options) {
  if (!options.prefix_cache) return std::nullopt;
  return PrefixHasher(executor.options().block_size);
}

BatcherOptions ToBatcherOptions(const Executor& executor, const EngineOptions& options,
                                const std::optional<PrefixHasher>& hasher) {
  const ExecutorOptions& limits = executor.options();
  const PrefillSizes sizes(limits);
  return {.max_batch_size = limits.max_batch_size,
          .prefill_chunk_size = options.prefill_chunk_size,
          .prefill_sizes = {sizes.all().begin(), sizes.all().end()},
          .itl_factor = options.itl_factor,
          .block_size = limits.block_size,
          .kv_blocks = limits.kv_blocks,
          .groups = options.groups,
          .client_weights = options.client_weights,
          .run_ahead = executor.run_ahead(),
          .hasher = hasher ? &*hasher : nullptr};
}

InboxLimits ToInboxLimits(const ExecutorOptions& executor, const EngineOptions& options) {
  // Beside what waits, one batch may run and one be on its way through the delivery: so results
  // that nobody delivers cannot pile up.
  return {.max_queue_size = options.max_queue_size,
          .max_queue_tokens = options.max_queue_tokens,
          .max_open = int64_t{options.max_queue_size} + 2 * int64_t{executor.max_batch_size}};
}

absl::Status EndStatus(absl::StatusCode reason) {
  switch (reason) {
    case absl::StatusCode::kDeadlineExceeded:
      return absl::DeadlineExceededError("the deadline has passed");
    case absl::StatusCode::kUnavailable:
      return absl::UnavailableError("the request was ended by the server");
    default:
      return absl::CancelledError("the request was cancelled");
  }
}

}  // namespace

EngineLoop::EngineLoop(std::unique_ptr<Executor> executor, const Tokenizer* tokenizer,
                       EngineObserver* observer, const EngineOptions& options)
    : options_(options),
      executor_(std::move(executor)),
      hasher_(MakeHasher(*executor_, options)),
      tokenizer_(tokenizer),
      observer_(observer),
      cancel_signal_(std::make_shared<std::atomic<bool>>(false)),
      last_step_(Clock::now().time_since_epoch().count()),
      batcher_(ToBatcherOptions(*executor_, options, hasher_)),
      inbox_(ToInboxLimits(executor_->options(), options)),
      delivery_(tokenizer, observer, options.delivery_threads,
                [this](uint64_t request, int32_t index) { inbox_.PushEnd(request, index); }) {}

void EngineLoop::Start() {
  inbox_.SetWaiting(0, 0, batcher_.startable());
  TellGauges();
  delivery_.Start();
  thread_ = std::thread([this] { Run(); });
}

EngineLoop::~EngineLoop() {
  const absl::Status stopped = absl::UnavailableError("the engine has stopped");
  inbox_.Close(stopped, "");
  inbox_.Stop();
  if (thread_.joinable()) thread_.join();
  delivery_.EndAll(stopped);
}

// --- callers' threads ---

absl::StatusOr<std::shared_ptr<TokenStream>> EngineLoop::Submit(Request request,
                                                                TokenStream::Listener listener) {
  const ExecutorOptions& limits = executor_->options();
  if (auto status = ValidateRequest(request, limits.max_length, limits.max_batch_size);
      !status.ok()) {
    return status;
  }
  if (tokenizer_ == nullptr && !request.stop.strings.empty()) {
    return absl::FailedPreconditionError("stop.strings: the model has no tokenizer");
  }
  if (!batcher_.CanEverRun(request)) {
    observer_->OnRejected("kv");
    return absl::ResourceExhaustedError(absl::StrCat(
        "the KV cache cannot hold ", SlotsOf(request), " slots in blocks of ", limits.block_size,
        request.beam ? absl::StrCat(" for each of ", request.beam->num_beams, " beams") : "",
        ": shorten the prompt or max_new_tokens"));
  }
  auto stream = std::make_shared<TokenStream>(std::move(listener), cancel_signal_);
  auto context =
      MakeRequestContext(next_number_.fetch_add(1, std::memory_order_relaxed), std::move(request),
                         stream, options_.end_token_ids, hasher_ ? &*hasher_ : nullptr);
  if (context->searches() && BeamGroup::Candidates(*context) > kMaxTopLogprobs) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_beams: ", context->request.beam->num_beams, " beams with ", context->barred_ids.size(),
        " end and stop tokens; together they may be at most ", kMaxTopLogprobs));
  }
  if (auto refusal = inbox_.Push(std::move(context), delivery_); refusal) {
    if (!refusal->reason.empty()) observer_->OnRejected(refusal->reason);
    return refusal->status;
  }
  return stream;
}

bool EngineLoop::Drain(std::chrono::milliseconds timeout) {
  inbox_.Close(absl::UnavailableError("the server is draining"), "draining");
  if (delivery_.WaitUntilAllDone(Clock::now() + timeout)) return true;
  // The streams end now, whatever the engine thread is doing.
  delivery_.EndAll(absl::UnavailableError("the server has stopped before the request ended"));
  inbox_.EndAll();
  delivery_.WaitUntilAllDone(std::nullopt);
  return false;
}

absl::Status EngineLoop::fault() const {
  return faulty_.load(std::memory_order_acquire) ? fault_ : absl::OkStatus();
}

Clock::time_point EngineLoop::last_step() const {
  const Clock::time_point step(Clock::duration(last_step_.load(std::memory_order_acquire)));
  return std::max(step, inbox_.busy_since());
}

// --- the engine thread ---

void EngineLoop::Run() {
  const auto idle = [&] { return batcher_.empty() && batcher_.in_flight() == 0; };
  while (inbox_.Take(/*wait=*/idle(), &arrivals_)) {
    if (absl::Status status = Turn(); !status.ok()) return Fault(status);
  }
}

absl::Status EngineLoop::Turn() {
  TakeArrivals();
  EndCancelled();
  if (auto status = Admit(); !status.ok()) return status;
  TellGauges();
  if (auto status = RunStep(); !status.ok()) return status;
  TellGauges();
  delivery_.Post(&events_);
  return absl::OkStatus();
}

void EngineLoop::TakeArrivals() {
  if (arrivals_.end_all) {
    // Their streams have ended already.
    batcher_.EndAll();
    arrivals_.requests.clear();
  }
  for (auto& context : arrivals_.requests) Enqueue(std::move(context));
  for (const auto& [request, index] : arrivals_.ends) batcher_.EndSequence(request, index);
}

void EngineLoop::Enqueue(std::shared_ptr<const RequestContext> context) {
  const Clock::time_point now = Clock::now();
  const uint64_t number = context->number;
  const std::optional<Clock::time_point> deadline = context->request.deadline;
  const std::optional<Clock::duration> predicted = batcher_.Enqueue(std::move(context), now);
  if (!predicted) return;
  observer_->OnRejected("deadline");
  events_.push_back(
      {number, EndedEvent{.status = absl::ResourceExhaustedError(absl::StrCat(
                              "the deadline cannot be met: the first token is expected in ",
                              Seconds(*predicted), " s, the deadline is in ",
                              Seconds(*deadline - now), " s")),
                          .time = now}});
}

void EngineLoop::EndCancelled() {
  const bool look = cancel_signal_->exchange(false, std::memory_order_acq_rel);
  for (const Batcher::Ended& ended : batcher_.EndCancelled(Clock::now(), look)) {
    events_.push_back({ended.context->number, EndedEvent{EndStatus(ended.reason), Clock::now()}});
  }
  TellFreed();
}

absl::Status EngineLoop::Admit() {
  for (const Sequence* sequence : batcher_.Admit()) {
    const RequestContext& context = sequence->context();
    if (sequence->index() == 0 && sequence->preemptions() == 0) {
      const Clock::time_point now = Clock::now();
      observer_->OnQueueTime(Seconds(now - context.came));
      observer_->OnPromptTokens(context.prompt_length());
      events_.push_back({context.number, StartedEvent{now}});
    }
    if (auto status = executor_->StartLane(sequence->Start()); !status.ok()) return status;
  }
  const EngineGauges gauges = batcher_.gauges();
  inbox_.SetWaiting(gauges.requests_waiting, gauges.queue_tokens, batcher_.startable());
  return absl::OkStatus();
}

absl::Status EngineLoop::RunStep() {
  // With a beam search in the batch nothing is launched before what it hangs on is known.
  const int32_t ahead = batcher_.searches() ? 0 : executor_->run_ahead();
  while (batcher_.in_flight() > ahead) {
    if (auto status = CollectStep(); !status.ok()) return status;
  }
  const Step step = batcher_.PlanStep();
  if (!step.empty()) {
    if (auto status = executor_->Launch(step); !status.ok()) return status;
  }
  if (const int32_t count = batcher_.TakePreemptions(); count > 0) observer_->OnPreemptions(count);
  // The step just launched runs while what the one before gave is dealt with. Where nothing could
  // be launched, more is known only when a step has ended.
  const bool full = batcher_.in_flight() > ahead;
  if (full || (step.empty() && batcher_.in_flight() > 0)) return CollectStep();
  return absl::OkStatus();
}

absl::Status EngineLoop::CollectStep() {
  const absl::StatusOr<StepResult> result = executor_->Collect();
  if (!result.ok()) return result.status();
  const Clock::time_point end = Clock::now();
  last_step_.store(end.time_since_epoch().count(), std::memory_order_release);
  const absl::StatusOr<Batcher::StepFigures> figures = batcher_.FinishStep(*result, end, &events_);
  if (!figures.ok()) return figures.status();
  if (figures->prefill_tokens > 0) {
    observer_->OnStep(StepPhase::kPrefill, result->prefill_seconds, figures->prefill_tokens);
    observer_->OnPrefixCache(figures->prefix_queries, figures->prefix_hits);
  }
  if (figures->decode_rows > 0) {
    observer_->OnStep(StepPhase::kDecode, result->decode_seconds, figures->decode_rows);
  }
  if (figures->overrun_rows > 0) observer_->OnOverrunRows(figures->overrun_rows);
  TellFreed();
  for (const LaneFork& fork : batcher_.TakeForks()) {
    if (auto status = executor_->ForkLane(fork); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void EngineLoop::TellFreed() {
  for (const Clock::time_point since : batcher_.TakeFreed()) {
    observer_->OnCancelToFree(Seconds(Clock::now() - since));
  }
}

void EngineLoop::TellGauges() {
  const EngineGauges gauges = batcher_.gauges();
  if (told_gauges_ == gauges) return;
  told_gauges_ = gauges;
  observer_->OnGauges(gauges);
}

void EngineLoop::Fault(const absl::Status& status) {
  fault_ =
      absl::InternalError(absl::StrCat("the device has failed: ", std::string(status.message())));
  faulty_.store(true, std::memory_order_release);
  inbox_.Close(fault_, "");
  batcher_.EndAll();
  batcher_.AbandonSteps();
  TellFreed();
  inbox_.SetWaiting(0, 0, 0);
  TellGauges();
  delivery_.Post(&events_);
  delivery_.EndAll(fault_);
}

}  // namespace sirocco
