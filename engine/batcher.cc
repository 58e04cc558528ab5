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
    : options_(options), kv_(options.block_size, options.kv_blocks) {
  const size_t lanes = options.max_batch_size;
  for (size_t lane = lanes; lane-- > 0;) free_lanes_.push_back(static_cast<int32_t>(lane));
  running_.reserve(lanes);
  // A step takes no memory: what it needs at most is here.
  const size_t groups = options.kv_blocks.size();
  decode_updates_.reserve(lanes * groups);
  prefill_updates_.reserve((lanes + options.prefill_chunk_size / options.block_size + 1) * groups);
  for (auto* rows : {&prefill_rows_, &decode_rows_}) rows->reserve(lanes);
  chunks_.reserve(lanes);
  lanes_.reserve(lanes);
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
    if (live.context->stream->cancelled()) {
      ended.reason = live.context->stream->cancel_reason();
      ended.since = live.context->stream->cancel_time();
    } else if (deadline && *deadline <= now) {
      ended.reason = absl::StatusCode::kDeadlineExceeded;
      ended.since = *deadline;
    } else {
      if (deadline) next_deadline_ = std::min(next_deadline_, *deadline);
      ++it;
      continue;
    }
    ended.context = live.context;
    ended.stage = StageOf(live);
    ended.lanes = live.running;
    all_ended.push_back(std::move(ended));
    for (const std::unique_ptr<Sequence>& sequence : running_) {
      if (sequence->context().number == it->first) sequence->End();
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

Batcher::Plan Batcher::PlanStep() {
  prefill_updates_.clear();
  decode_updates_.clear();
  chunks_.clear();
  lanes_.clear();
  prefill_rows_.clear();
  decode_rows_.clear();
  int32_t budget = options_.prefill_chunk_size;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (!sequence->prefilling()) {
      // Its newest token gets its KV in this step.
      kv_.Extend(sequence->blocks(), sequence->length(), sequence->lane(), &decode_updates_);
      lanes_.push_back(sequence->lane());
      decode_rows_.push_back(sequence.get());
    } else if (budget > 0) {
      const PrefillChunk chunk = sequence->NextChunk(budget);
      kv_.Extend(sequence->blocks(), chunk.first_position + chunk.count, chunk.lane,
                 &prefill_updates_);
      chunks_.push_back(chunk);
      prefill_rows_.push_back(sequence.get());
      budget -= chunk.count;
    }
  }
  return {.prefill = {.block_updates = prefill_updates_, .chunks = chunks_},
          .decode = {.block_updates = decode_updates_, .lanes = lanes_},
          .prefill_tokens = options_.prefill_chunk_size - budget};
}

absl::Status Batcher::FinishPrefill(const PrefillResult& result, Clock::time_point time,
                                    std::vector<Event>* events) {
  size_t sampled_count = 0;
  size_t scored_count = 0;
  for (const PrefillChunk& chunk : chunks_) {
    sampled_count += chunk.sample ? 1 : 0;
    scored_count += chunk.score_count;
  }
  if (auto status = CheckSize("sampled tokens", result.sampled.size(), sampled_count);
      !status.ok()) {
    return status;
  }
  if (auto status = CheckSize("scored tokens", result.scored.size(), scored_count); !status.ok()) {
    return status;
  }
  const TokenScore* sampled = result.sampled.data();
  std::span<const TokenScore> scored = result.scored;
  for (size_t row = 0; row < chunks_.size(); ++row) {
    const PrefillChunk& chunk = chunks_[row];
    FinishChunk(*prefill_rows_[row], chunk, chunk.sample ? sampled++ : nullptr,
                scored.first(chunk.score_count), time, events);
    scored = scored.subspan(chunk.score_count);
  }
  Retire();
  return absl::OkStatus();
}

void Batcher::FinishChunk(Sequence& sequence, const PrefillChunk& chunk, const TokenScore* sampled,
                          std::span<const TokenScore> scored, Clock::time_point time,
                          std::vector<Event>* events) {
  const uint64_t number = sequence.context().number;
  sequence.ChunkDone(chunk.count);
  for (const TokenScore& score : scored) events->push_back({number, PromptScoreEvent{score}});
  if (sampled != nullptr) {
    requests_.at(number).first_token = true;
    TokenCame(sequence, *sampled, time, events);
  } else if (!sequence.prefilling()) {
    events->push_back({number, ScoredEvent{time}});
    sequence.End();
  }
}

absl::Status Batcher::FinishDecode(const DecodeResult& result, Clock::time_point time,
                                   std::vector<Event>* events) {
  if (auto status = CheckSize("tokens", result.sampled.size(), decode_rows_.size()); !status.ok()) {
    return status;
  }
  for (size_t row = 0; row < decode_rows_.size(); ++row) {
    TokenCame(*decode_rows_[row], result.sampled[row], time, events);
  }
  Retire();
  return absl::OkStatus();
}

void Batcher::TokenCame(Sequence& sequence, const TokenScore& score, Clock::time_point time,
                        std::vector<Event>* events) {
  const TokenRole role = sequence.Append(score.token_id);
  events->push_back(
      {sequence.context().number,
       TokenEvent{.index = sequence.index(), .role = role, .time = time, .score = score}});
}

void Batcher::Retire() {
  const auto leave = [&](const std::unique_ptr<Sequence>& sequence) {
    if (!sequence->ended()) return false;
    kv_.Free(sequence->blocks());
    free_lanes_.push_back(sequence->lane());
    // A request that was ended as a whole is gone already.
    const auto it = requests_.find(sequence->context().number);
    if (it != requests_.end() && --it->second.running == 0 && it->second.all_started()) {
      requests_.erase(it);
    }
    return true;
  };
  running_.erase(std::remove_if(running_.begin(), running_.end(), leave), running_.end());
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
