#include "engine/batcher.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace sirocco {

Batcher::Batcher(const BatcherOptions& options)
    : options_(options),
      kv_(options.block_size, options.kv_blocks, options.groups, options.prefill_chunk_size),
      queue_(options.client_weights, options.prefill_chunk_size),
      no_blocks_(kv_.MakeTable(0)),
      steps_(static_cast<size_t>(options.run_ahead) + 1) {
  const size_t lanes = options.max_batch_size;
  for (size_t lane = lanes; lane-- > 0;) free_lanes_.push_back(static_cast<int32_t>(lane));
  running_.reserve(lanes);
  leaving_.reserve(lanes);
  needs_.reserve(lanes);
  // A step takes no memory: what it needs at most is here.
  const size_t groups = options.kv_blocks.size();
  for (PlannedStep& step : steps_) {
    step.decode_updates.reserve(lanes * groups);
    step.decode_copies.reserve(lanes * groups);
    step.prefill_updates.reserve((lanes + options.prefill_chunk_size / options.block_size + 1) *
                                 groups);
    for (auto* rows : {&step.prefill_rows, &step.decode_rows}) rows->reserve(lanes);
    step.chunks.reserve(lanes);
    step.lanes.reserve(lanes);
  }
}

std::optional<Clock::duration> Batcher::Enqueue(std::shared_ptr<const RequestContext> context,
                                                Clock::time_point now) {
  const Request& request = context->request;
  ClientShare* const share = queue_.Join(request.client);
  // A deadline that has passed is none to be met; EndCancelled ends the request.
  if (request.deadline && *request.deadline > now) {
    const std::optional<Clock::duration> predicted = PredictFirstToken(*context, share);
    if (predicted && now + *predicted > *request.deadline) {
      queue_.Leave(share);
      if (requests_.empty()) prompt_rate_.Doubt();
      return predicted;
    }
  }
  if (request.deadline) next_deadline_ = std::min(next_deadline_, *request.deadline);
  // Its signal may have come before the request did.
  look_ |= context->stream->cancelled();
  const uint64_t number = context->number;
  queue_.Add(share, request.priority, number, context->prompt_length());
  Live& live = requests_[number];
  live.context = std::move(context);
  live.share = share;
  CountWaiting(live, +1);
  return std::nullopt;
}

std::optional<Clock::duration> Batcher::PredictFirstToken(const RequestContext& context,
                                                          const ClientShare* share) const {
  const int32_t own = context.prompt_length() - kv_.CachedSlots(SharableNames(context));
  int64_t tokens = own + queue_.TokensBefore(share, context.request.priority, own);
  bool others_decode = false;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    others_decode |= sequence->decoding();
    tokens += sequence->left_to_prefill();
  }
  const std::optional<double> rate = prompt_rate_.SecondsAToken(others_decode);
  if (!rate) return std::nullopt;
  // A day is as good as anything beyond it, and no duration overflows.
  const double seconds = std::min(86400.0, *rate * static_cast<double>(tokens));
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

void Batcher::CountWaiting(const Live& live, int sign) {
  waiting_requests_ += sign;
  waiting_tokens_ += int64_t{sign} * live.context->prompt_length();
}

void Batcher::EndSequence(uint64_t request, int32_t index) {
  ForEachLive([&](Sequence& sequence) {
    if (sequence.context().number == request && sequence.index() == index) sequence.End();
  });
  Retire();
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
    all_ended.push_back(std::move(ended));
    ForEachLive([&](Sequence& sequence) {
      if (sequence.context().number == it->first) sequence.Cancel(since);
    });
    if (live.waits()) CountWaiting(live, -1);
    if (!live.all_started()) {
      queue_.Remove(live.share, live.context->request.priority, it->first);
    }
    queue_.Leave(live.share);
    it = requests_.erase(it);
  }
  Retire();
  return all_ended;
}

void Batcher::EndAll() {
  ForEachLive([](Sequence& sequence) { sequence.End(); });
  for (const auto& [number, live] : requests_) queue_.Leave(live.share);
  requests_.clear();
  queue_.Clear();
  waiting_requests_ = 0;
  waiting_tokens_ = 0;
  Retire();
}

void Batcher::Free(Sequence& sequence) {
  kv_.Free(sequence.blocks());
  free_lanes_.push_back(sequence.lane());
  --sequence.share()->lanes;
}

void Batcher::Forget(const Sequence& sequence) {
  // A request that was ended as a whole is gone already.
  const auto it = requests_.find(sequence.context().number);
  if (it != requests_.end() && --it->second.running == 0 && it->second.all_started()) {
    queue_.Leave(it->second.share);
    requests_.erase(it);
  }
}

void Batcher::Retire() {
  for (std::unique_ptr<Sequence>& sequence : preempted_) {
    if (!sequence->ended()) continue;
    Forget(*sequence);
    if (sequence->cancelled()) freed_.push_back(*sequence->cancelled());  // all it had is free
    sequence.reset();
  }
  std::erase(preempted_, nullptr);
  for (std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->ended()) {
      Forget(*sequence);
      leaving_.push_back(std::move(sequence));
    } else if (sequence->preempted() && !sequence->in_flight()) {
      Free(*sequence);
      sequence->Rewind();
      ++preemptions_;
      Insert(std::move(sequence), &preempted_);
    }
  }
  std::erase(running_, nullptr);
  for (std::unique_ptr<Sequence>& sequence : leaving_) {
    if (sequence->in_flight()) continue;
    Free(*sequence);
    if (sequence->cancelled()) freed_.push_back(*sequence->cancelled());
    sequence.reset();
  }
  std::erase(leaving_, nullptr);
}

bool Batcher::searches() const {
  return std::any_of(running_.begin(), running_.end(),
                     [](const auto& sequence) { return sequence->group() != nullptr; });
}

EngineGauges Batcher::gauges() const {
  EngineGauges gauges;
  gauges.requests_waiting = waiting_requests_;
  gauges.requests_running = static_cast<int32_t>(requests_.size()) - waiting_requests_;
  gauges.queue_tokens = waiting_tokens_;
  gauges.kv_blocks_used = kv_.used_blocks();
  gauges.kv_blocks_cached = kv_.cached_blocks();
  gauges.kv_blocks_free = kv_.total_blocks() - gauges.kv_blocks_used - gauges.kv_blocks_cached;
  return gauges;
}

}  // namespace sirocco
