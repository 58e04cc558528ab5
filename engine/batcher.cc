#include "engine/batcher.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace sirocco {

Batcher::Batcher(const BatcherOptions& options)
    : options_(options),
      kv_(options.block_size, options.kv_blocks, options.groups, options.prefill_chunk_size),
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

bool Batcher::HasRoom(const Sequence& sequence) {
  needs_.clear();
  for (const std::unique_ptr<Sequence>& other : running_) {
    needs_.push_back({&other->blocks(), SlotsOf(other->context().request)});
  }
  return kv_.HasRoom(sequence.SharableNames(), SlotsOf(sequence.context().request), needs_);
}

std::vector<const Sequence*> Batcher::Admit() {
  std::vector<const Sequence*> admitted;
  while (!queue_.empty() && !free_lanes_.empty()) {
    Live& live = requests_.at(queue_.front());
    auto sequence =
        std::make_unique<Sequence>(live.context, live.started, free_lanes_.back(),
                                   kv_.MakeTable(SlotsOf(live.context->request)), options_.hasher);
    if (!HasRoom(*sequence)) break;
    // What it begins with is held from now on.
    sequence->BeginAt(kv_.Share(sequence->blocks(), sequence->SharableNames()));
    if (live.waits()) CountWaiting(live, -1);
    free_lanes_.pop_back();
    admitted.push_back(sequence.get());
    running_.push_back(std::move(sequence));
    ++live.started;
    ++live.running;
    if (live.all_started()) queue_.pop_front();
  }
  return admitted;
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
  gauges.kv_blocks_cached = kv_.cached_blocks();
  gauges.kv_blocks_free = kv_.total_blocks() - gauges.kv_blocks_used - gauges.kv_blocks_cached;
  return gauges;
}

}  // namespace sirocco
