#include "engine/batcher.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

absl::Status CheckSize(const char* what, size_t got, size_t planned) {
  if (got == planned) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the executor returned ", got, " ", what, ", the step planned ", planned));
}

}  // namespace

Batcher::Batcher(const BatcherOptions& options)
    : options_(options),
      kv_(options.block_size, options.kv_blocks, options.groups, options.prefill_chunk_size),
      steps_(static_cast<size_t>(options.run_ahead) + 1) {
  const size_t lanes = options.max_batch_size;
  for (size_t lane = lanes; lane-- > 0;) free_lanes_.push_back(static_cast<int32_t>(lane));
  running_.reserve(lanes);
  leaving_.reserve(lanes);
  // A step takes no memory: what it needs at most is here.
  const size_t groups = options.kv_blocks.size();
  for (PlannedStep& step : steps_) {
    step.decode_updates.reserve(lanes * groups);
    step.prefill_updates.reserve((lanes + options.prefill_chunk_size / options.block_size + 1) *
                                 groups);
    for (auto* rows : {&step.prefill_rows, &step.decode_rows}) rows->reserve(lanes);
    step.chunks.reserve(lanes);
    step.lanes.reserve(lanes);
  }
}

void Batcher::Enqueue(std::shared_ptr<const RequestContext> context) {
  const uint64_t number = context->number;
  if (context->request.deadline) {
    next_deadline_ = std::min(next_deadline_, *context->request.deadline);
  }
  // Its signal may have come before the request did.
  look_ |= context->stream->cancelled();
  Live& live = requests_[number];
  live.context = std::move(context);
  queue_.push_back(number);
  CountWaiting(live, +1);
}

void Batcher::CountWaiting(const Live& live, int sign) {
  waiting_requests_ += sign;
  waiting_tokens_ += int64_t{sign} * live.context->prompt_length();
}

void Batcher::EndSequence(uint64_t request, int32_t index) {
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->context().number == request && sequence->index() == index) {
      sequence->End();
      Retire();
      return;
    }
  }
}

RequestStage Batcher::StageOf(const Live& live) const {
  if (live.waits()) return RequestStage::kQueue;
  return live.first_token ? RequestStage::kDecode : RequestStage::kPrefill;
}

std::vector<Batcher::Ended> Batcher::EndCancelled(Clock::time_point now, bool look) {
  std::vector<Ended> all_ended;
  if (!std::exchange(look_, false) && !look && now < next_deadline_) return all_ended;
  next_deadline_ = Clock::time_point::max();
  for (auto it = requests_.begin(); it != requests_.end();) {
    const Live& live = it->second;
    const std::optional<Clock::time_point>& deadline = live.context->request.deadline;
    Ended ended;
    Clock::time_point since;
    if (live.context->stream->cancelled()) {
      ended.reason = live.context->stream->cancel_reason();
      since = live.context->stream->cancel_time();
    } else if (deadline && *deadline <= now) {
      ended.reason = absl::StatusCode::kDeadlineExceeded;
      since = *deadline;
    } else {
      if (deadline) next_deadline_ = std::min(next_deadline_, *deadline);
      ++it;
      continue;
    }
    ended.context = live.context;
    ended.stage = StageOf(live);
    all_ended.push_back(std::move(ended));
    for (const std::unique_ptr<Sequence>& sequence : running_) {
      if (sequence->context().number == it->first) sequence->Cancel(since);
    }
    if (live.waits()) CountWaiting(live, -1);
    if (!live.all_started()) queue_.erase(std::find(queue_.begin(), queue_.end(), it->first));
    it = requests_.erase(it);
  }
  Retire();
  return all_ended;
}

void Batcher::EndAll() {
  for (const std::unique_ptr<Sequence>& sequence : running_) sequence->End();
  requests_.clear();
  queue_.clear();
  waiting_requests_ = 0;
  waiting_tokens_ = 0;
  Retire();
}

std::vector<const Sequence*> Batcher::Admit() {
  std::vector<const Sequence*> admitted;
  while (!queue_.empty() && !free_lanes_.empty()) {
    Live& live = requests_.at(queue_.front());
    std::optional<BlockTable> blocks = kv_.Reserve(SlotsOf(live.context->request));
    if (!blocks) break;
    if (live.waits()) CountWaiting(live, -1);
    running_.push_back(std::make_unique<Sequence>(live.context, live.started, free_lanes_.back(),
                                                  *std::move(blocks)));
    free_lanes_.pop_back();
    admitted.push_back(running_.back().get());
    ++live.started;
    ++live.running;
    if (live.all_started()) queue_.pop_front();
  }
  return admitted;
}

Step Batcher::PlanStep() {
  PlannedStep& step = StepOf(planned_);
  step.prefill_updates.clear();
  step.decode_updates.clear();
  step.chunks.clear();
  step.lanes.clear();
  step.prefill_rows.clear();
  step.decode_rows.clear();
  int32_t budget = options_.prefill_chunk_size;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->decoding()) {
      // Its newest token gets its KV in this step.
      kv_.Extend(sequence->blocks(), sequence->length(), sequence->lane(), &step.decode_updates);
      step.lanes.push_back(sequence->lane());
      step.decode_rows.push_back(sequence.get());
      sequence->DecodeLaunched();
    } else if (sequence->prefilling() && budget > 0) {
      const PrefillChunk chunk = sequence->NextChunk(budget);
      kv_.Extend(sequence->blocks(), chunk.first_position + chunk.count, chunk.lane,
                 &step.prefill_updates);
      step.chunks.push_back(chunk);
      step.prefill_rows.push_back(sequence.get());
      sequence->ChunkLaunched(chunk);
      budget -= chunk.count;
    }
  }
  const Step plan = {.prefill = {.block_updates = step.prefill_updates, .chunks = step.chunks},
                     .decode = {.block_updates = step.decode_updates, .lanes = step.lanes}};
  if (!plan.empty()) ++planned_;
  return plan;
}

absl::Status Batcher::CheckResult(const PlannedStep& step, const StepResult& result) {
  size_t sampled = 0;
  size_t scored = 0;
  for (const PrefillChunk& chunk : step.chunks) {
    sampled += chunk.sample ? 1 : 0;
    scored += chunk.score_count;
  }
  absl::Status status = CheckSize("sampled tokens", result.prefill.sampled.size(), sampled);
  if (status.ok()) status = CheckSize("scored tokens", result.prefill.scored.size(), scored);
  if (status.ok()) {
    status = CheckSize("tokens", result.decode.sampled.size(), step.decode_rows.size());
  }
  return status;
}

absl::StatusOr<Batcher::StepFigures> Batcher::FinishStep(const StepResult& result,
                                                         Clock::time_point time,
                                                         std::vector<Event>* events) {
  if (in_flight() == 0) return absl::InternalError("a step ended that was not planned");
  const PlannedStep& step = StepOf(finished_);
  if (absl::Status status = CheckResult(step, result); !status.ok()) return status;
  FinishPrefill(step, result.prefill, time, events);
  StepFigures figures;
  for (const PrefillChunk& chunk : step.chunks) figures.prefill_tokens += chunk.count;
  figures.decode_rows = static_cast<int32_t>(step.decode_rows.size());
  for (size_t row = 0; row < step.decode_rows.size(); ++row) {
    Sequence& sequence = *step.decode_rows[row];
    sequence.StepEnded();
    if (sequence.ended()) {
      ++figures.overrun_rows;
    } else {
      TokenCame(sequence, result.decode.sampled[row], time, events);
    }
  }
  ++finished_;
  Retire();
  return figures;
}

void Batcher::FinishPrefill(const PlannedStep& step, const PrefillResult& result,
                            Clock::time_point time, std::vector<Event>* events) {
  const TokenScore* sampled = result.sampled.data();
  std::span<const TokenScore> scored = result.scored;
  for (size_t row = 0; row < step.chunks.size(); ++row) {
    const PrefillChunk& chunk = step.chunks[row];
    const TokenScore* const token = chunk.sample ? sampled++ : nullptr;
    Sequence& sequence = *step.prefill_rows[row];
    sequence.StepEnded();
    if (!sequence.ended()) {
      FinishChunk(sequence, chunk, token, scored.first(chunk.score_count), time, events);
    }
    scored = scored.subspan(chunk.score_count);
  }
}

void Batcher::FinishChunk(Sequence& sequence, const PrefillChunk& chunk, const TokenScore* sampled,
                          std::span<const TokenScore> scored, Clock::time_point time,
                          std::vector<Event>* events) {
  const uint64_t number = sequence.context().number;
  for (const TokenScore& score : scored) events->push_back({number, PromptScoreEvent{score}});
  if (sampled != nullptr) {
    requests_.at(number).first_token = true;
    TokenCame(sequence, *sampled, time, events);
  } else if (chunk.first_position + chunk.count == sequence.context().prompt_length()) {
    events->push_back({number, ScoredEvent{time}});
    sequence.End();
  }
}

void Batcher::AbandonSteps() {
  for (; finished_ < planned_; ++finished_) {
    const PlannedStep& step = StepOf(finished_);
    for (Sequence* sequence : step.prefill_rows) sequence->StepEnded();
    for (Sequence* sequence : step.decode_rows) sequence->StepEnded();
  }
  Retire();
}

void Batcher::TokenCame(Sequence& sequence, const TokenScore& score, Clock::time_point time,
                        std::vector<Event>* events) {
  const TokenRole role = sequence.Append(score.token_id);
  events->push_back(
      {sequence.context().number,
       TokenEvent{.index = sequence.index(), .role = role, .time = time, .score = score}});
}

void Batcher::Free(Sequence& sequence) {
  kv_.Free(sequence.blocks());
  free_lanes_.push_back(sequence.lane());
  if (sequence.cancelled()) freed_.push_back(*sequence.cancelled());
}

void Batcher::Retire() {
  for (std::unique_ptr<Sequence>& sequence : running_) {
    if (!sequence->ended()) continue;
    // A request that was ended as a whole is gone already.
    const auto it = requests_.find(sequence->context().number);
    if (it != requests_.end() && --it->second.running == 0 && it->second.all_started()) {
      requests_.erase(it);
    }
    leaving_.push_back(std::move(sequence));
  }
  std::erase(running_, nullptr);
  for (std::unique_ptr<Sequence>& sequence : leaving_) {
    if (sequence->in_flight()) continue;
    Free(*sequence);
    sequence.reset();
  }
  std::erase(leaving_, nullptr);
}

EngineGauges Batcher::gauges() const {
  EngineGauges gauges;
  gauges.requests_waiting = waiting_requests_;
  gauges.requests_running = static_cast<int32_t>(requests_.size()) - waiting_requests_;
  gauges.queue_tokens = waiting_tokens_;
  gauges.kv_blocks_used = kv_.used_blocks();
  gauges.kv_blocks_free = kv_.total_blocks() - kv_.used_blocks();
  return gauges;
}

}  // namespace sirocco
