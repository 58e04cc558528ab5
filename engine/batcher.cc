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
  queue_.Add(number, live.context->request.priority);
  CountWaiting(live, +1);
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
    if (!live.all_started()) queue_.Remove(it->first, live.context->request.priority);
    it = requests_.erase(it);
  }
  Retire();
  return all_ended;
}

void Batcher::EndAll() {
  ForEachLive([](Sequence& sequence) { sequence.End(); });
  requests_.clear();
  queue_.Clear();
  waiting_requests_ = 0;
  waiting_tokens_ = 0;
  Retire();
}

std::span<const BlockHash> Batcher::SharableNames(const RequestContext& context) const {
  if (context.names.empty() || context.scores_prompt()) return {};
  return std::span(context.names).first((context.prompt_length() - 1) / options_.block_size);
}

bool Batcher::HasRoom(const Request& request, std::span<const BlockHash> names, int32_t known,
                      int32_t preemptions) {
  // Who was preempted may not be again soon: each time twice as many slots must be there for it and
  // for each of those that run. So a sequence is computed anew a few times at most, however long.
  const int64_t ahead = int64_t{options_.block_size} << std::min(preemptions, 20);
  const auto slots = [&](const Request& asked, int32_t length) {
    return static_cast<int32_t>(std::min<int64_t>(SlotsOf(asked), length + ahead));
  };
  needs_.clear();
  for (const std::unique_ptr<Sequence>& other : running_) {
    if (!other->prefilling() && !other->decoding()) continue;  // it gives back all it has
    needs_.push_back({&other->blocks(), slots(other->context().request, other->length())});
  }
  return kv_.HasRoom(names, slots(request, known), needs_);
}

std::unique_ptr<Sequence> Batcher::ResumeNext() {
  Sequence& next = *preempted_.front();
  const Request& request = next.context().request;
  if (!HasRoom(request, next.SharableNames(), next.length(), next.preemptions())) return nullptr;
  next.Resume(free_lanes_.back(), kv_.MakeTable(SlotsOf(request)));
  std::unique_ptr<Sequence> sequence = std::move(preempted_.front());
  preempted_.erase(preempted_.begin());
  return sequence;
}

std::unique_ptr<Sequence> Batcher::StartNext() {
  const uint64_t number = queue_.front();
  Live& live = requests_.at(number);
  const Request& request = live.context->request;
  if (!HasRoom(request, SharableNames(*live.context), live.context->prompt_length(), 0)) {
    return nullptr;
  }
  if (live.waits()) CountWaiting(live, -1);
  const int32_t index = live.started++;
  ++live.running;
  if (live.all_started()) queue_.Remove(number, request.priority);
  return std::make_unique<Sequence>(live.context, index, free_lanes_.back(),
                                    kv_.MakeTable(SlotsOf(request)), options_.hasher);
}

std::vector<const Sequence*> Batcher::Admit() {
  std::vector<const Sequence*> admitted;
  while (!free_lanes_.empty() && (!preempted_.empty() || !queue_.empty())) {
    // Who was preempted has been waiting for longer than all of its priority that have no lane yet.
    const bool resumes =
        !preempted_.empty() &&
        (queue_.empty() || preempted_.front()->context().request.priority >=
                               requests_.at(queue_.front()).context->request.priority);
    std::unique_ptr<Sequence> sequence = resumes ? ResumeNext() : StartNext();
    if (sequence == nullptr) break;
    free_lanes_.pop_back();
    // What it begins with is held from now on.
    sequence->BeginAt(kv_.Share(sequence->blocks(), sequence->SharableNames()));
    admitted.push_back(sequence.get());
    Insert(std::move(sequence), &running_);
  }
  return admitted;
}

void Batcher::Insert(std::unique_ptr<Sequence> sequence, Sequences* sequences) {
  const auto at = std::upper_bound(sequences->begin(), sequences->end(), sequence,
                                   [](const auto& a, const auto& b) { return a->ComesBefore(*b); });
  sequences->insert(at, std::move(sequence));
}

bool Batcher::MakeRoom() {
  // What is on its way back may be enough, and costs nothing.
  const auto runs = [](const auto& sequence) {
    return sequence->prefilling() || sequence->decoding();
  };
  if (!leaving_.empty() || !std::all_of(running_.begin(), running_.end(), runs)) return false;
  Sequence& victim = *running_.back();
  victim.Preempt();
  if (victim.in_flight()) return false;  // it goes when its step has ended
  Retire();
  return true;
}

void Batcher::Free(Sequence& sequence) {
  kv_.Free(sequence.blocks());
  free_lanes_.push_back(sequence.lane());
}

void Batcher::Forget(const Sequence& sequence) {
  // A request that was ended as a whole is gone already.
  const auto it = requests_.find(sequence.context().number);
  if (it != requests_.end() && --it->second.running == 0 && it->second.all_started()) {
    requests_.erase(it);
  }
}

void Batcher::Retire() {
  for (std::unique_ptr<Sequence>& sequence : preempted_) {
    if (!sequence->ended()) continue;
    Forget(*sequence);  // it held nothing
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
