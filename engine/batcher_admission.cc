// Who gets a lane, and who loses it for another.
#include <algorithm>
#include <utility>

#include "engine/batcher.h"

namespace sirocco {

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
    if (!other->goes_on()) continue;  // it gives back all it has
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
  int64_t left = 0;  // of its client's prompts that have a lane
  for (const std::unique_ptr<Sequence>& other : running_) {
    // With a prefix cache it computes next to nothing of a prompt that its own request has there.
    const bool shares = options_.hasher != nullptr && other->context().number == number;
    if (other->share() == live.share && !shares) left += other->left_to_prefill();
  }
  if (left >= options_.prefill_chunk_size) return nullptr;
  if (!HasRoom(request, SharableNames(*live.context), live.context->prompt_length(), 0)) {
    return nullptr;
  }
  if (live.waits()) CountWaiting(live, -1);
  const int32_t index = live.started++;
  ++live.running;
  if (live.all_started()) queue_.Remove(live.share, request.priority, number);
  return std::make_unique<Sequence>(live.context, index, free_lanes_.back(),
                                    kv_.MakeTable(SlotsOf(request)), options_.hasher, live.share);
}

bool Batcher::ResumesNext() const {
  if (preempted_.empty() || queue_.empty()) return queue_.empty();
  const Sequence& preempted = *preempted_.front();
  const Live& head = requests_.at(queue_.front());
  const int32_t priority = preempted.context().request.priority;
  if (priority != head.context->request.priority) {
    return priority > head.context->request.priority;
  }
  // It has been waiting for longer; but not before a client that has fewer lanes.
  return preempted.share()->Lanes(1) <= head.share->Lanes(1);
}

bool Batcher::MakeLane() {
  const auto runs = [](const auto& sequence) {
    return sequence->prefilling() || sequence->decoding();
  };
  // One that is on its way back will do.
  if (queue_.empty() || !leaving_.empty() || !std::all_of(running_.begin(), running_.end(), runs)) {
    return false;
  }
  const Live& head = requests_.at(queue_.front());
  Sequence* victim = nullptr;  // the newest of the client with the most lanes for its weight
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->context().request.priority > head.context->request.priority) continue;
    if (victim == nullptr || sequence->share()->Lanes(0) >= victim->share()->Lanes(0)) {
      victim = sequence.get();
    }
  }
  // Not where it would be that client's turn next.
  if (victim == nullptr || victim->share() == head.share ||
      victim->share()->Lanes(-1) < head.share->Lanes(+1)) {
    return false;
  }
  return Preempt(*victim);
}

std::vector<const Sequence*> Batcher::Admit() {
  std::vector<const Sequence*> admitted;
  while (!preempted_.empty() || !queue_.empty()) {
    if (free_lanes_.empty() && !MakeLane()) break;
    std::unique_ptr<Sequence> sequence = ResumesNext() ? ResumeNext() : StartNext();
    if (sequence == nullptr) break;
    free_lanes_.pop_back();
    ++sequence->share()->lanes;
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

bool Batcher::SomethingReturns() const {
  return !leaving_.empty() ||
         !std::all_of(running_.begin(), running_.end(),
                      [](const auto& sequence) { return sequence->goes_on(); });
}

bool Batcher::MakeRoom() {
  // What is on its way back may be enough, and costs nothing.
  if (SomethingReturns()) return false;
  return Preempt(*running_.back());
}

bool Batcher::Preempt(Sequence& victim) {
  victim.Preempt();
  if (victim.in_flight()) return false;
  Retire();
  return true;
}

}  // namespace sirocco
