// Who gets a lane, and who loses it for another.
#include <algorithm>
#include <utility>

#include "engine/batcher.h"

namespace sirocco {

std::span<const BlockHash> Batcher::SharableNames(const RequestContext& context) const {
  if (context.names.empty() || context.scores_prompt()) return {};
  return std::span(context.names).first((context.prompt_length() - 1) / options_.block_size);
}

bool Batcher::HasRoom(const Candidate& candidate) {
  // Who was preempted may not be again soon: each time twice as many slots must be there for it and
  // for each of those that run. So a sequence is computed anew a few times at most, however long.
  const int64_t ahead = int64_t{options_.block_size} << std::min(candidate.preemptions, 20);
  const auto slots = [&](const Request& asked, int32_t length) {
    return static_cast<int32_t>(std::min<int64_t>(SlotsOf(asked), length + ahead));
  };
  needs_.clear();
  for (const std::unique_ptr<Sequence>& other : running_) {
    if (!other->goes_on()) continue;  // it gives back all it has
    // An idle beam will have its prompt's blocks from another one.
    const int32_t length = other->idle() ? 0 : other->length();
    needs_.push_back({&other->blocks(), slots(other->context().request, length)});
  }
  const int32_t known = slots(candidate.request, candidate.known);
  const int32_t idle = slots(candidate.request, 0);
  needs_.insert(needs_.end(), candidate.other_beams, {&no_blocks_, known});
  needs_.insert(needs_.end(), candidate.idle_beams, {&no_blocks_, idle});
  return kv_.HasRoom(candidate.names, known, needs_);
}

int32_t Batcher::TakeLane(ClientShare* share) {
  const int32_t lane = free_lanes_.back();
  free_lanes_.pop_back();
  ++share->lanes;
  return lane;
}

size_t Batcher::LanesOfNext() const {
  if (ResumesNext()) {
    const BeamGroup* const group = preempted_.front()->group();
    return group == nullptr ? 1 : group->members().size();
  }
  const RequestContext& context = *requests_.at(queue_.front()).context;
  return context.searches() ? context.sequences_to_run() : 1;
}

Batcher::Sequences Batcher::ResumeNext() {
  const Sequence& next = *preempted_.front();
  const Request& request = next.context().request;
  Candidate candidate = {request, next.SharableNames(), next.length(), next.preemptions()};
  size_t count = 1;
  if (const BeamGroup* const group = next.group(); group != nullptr) {
    count = group->members().size();
    // Some may still be in a step.
    if (preempted_.size() < count || preempted_[count - 1]->group() != group) return {};
    const auto others = static_cast<int32_t>(count) - 1;
    (group->forked() ? candidate.other_beams : candidate.idle_beams) = others;
  }
  Sequences sequences;
  if (!HasRoom(candidate)) return sequences;
  for (size_t i = 0; i < count; ++i) {
    Sequence& sequence = *preempted_[i];
    sequence.Resume(TakeLane(sequence.share()), kv_.MakeTable(SlotsOf(request)));
    sequences.push_back(std::move(preempted_[i]));
  }
  preempted_.erase(preempted_.begin(), preempted_.begin() + static_cast<ptrdiff_t>(count));
  return sequences;
}

Batcher::Sequences Batcher::StartNext() {
  const uint64_t number = queue_.front();
  Live& live = requests_.at(number);
  const Request& request = live.context->request;
  int64_t left = 0;  // of its client's prompts that have a lane
  for (const std::unique_ptr<Sequence>& other : running_) {
    // With a prefix cache it computes next to nothing of a prompt that its own request has there.
    const bool shares = options_.hasher != nullptr && other->context().number == number;
    if (other->share() == live.share && !shares) left += other->left_to_prefill();
  }
  Sequences sequences;
  if (left >= options_.prefill_chunk_size) return sequences;
  const auto count = static_cast<int32_t>(LanesOfNext());
  if (!HasRoom({.request = request,
                .names = SharableNames(*live.context),
                .known = live.context->prompt_length(),
                .idle_beams = count - 1})) {
    return sequences;
  }
  if (live.waits()) CountWaiting(live, -1);
  std::shared_ptr<BeamGroup> group;
  if (live.context->searches()) group = std::make_shared<BeamGroup>(live.context);
  for (int32_t i = 0; i < count; ++i) {
    sequences.push_back(
        std::make_unique<Sequence>(live.context, live.started++, TakeLane(live.share),
                                   kv_.MakeTable(SlotsOf(request)), options_.hasher, live.share));
    ++live.running;
    if (group == nullptr) continue;
    group->Add(sequences.back().get());
    sequences.back()->Join(group);
  }
  if (live.all_started()) queue_.Remove(live.share, request.priority, number);
  return sequences;
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
  // A group waits for as many as it needs: to take them one by one from others, and perhaps not to
  // get the last, would be dear for all.
  if (LanesOfNext() > 1) return false;
  if (queue_.empty()) return false;
  const Live& head = requests_.at(queue_.front());
  Sequence* victim = nullptr;  // the newest of the client with the most lanes for its weight
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->context().request.priority > head.context->request.priority) continue;
    if (victim == nullptr || sequence->share()->Lanes(0) >= victim->share()->Lanes(0)) {
      victim = sequence.get();
    }
  }
  if (victim == nullptr || victim->share() == head.share) return false;
  // Not where it would be that client's turn next.
  const BeamGroup* const group = victim->group();
  const int32_t lost = group == nullptr ? 1 : static_cast<int32_t>(group->members().size());
  if (victim->share()->Lanes(-lost) < head.share->Lanes(+1)) return false;
  // One that is on its way back will do, and is waited for as one that is taken.
  const bool free = !SomethingReturns() && Preempt(*victim);
  awaits_lane_ = !free;
  return free;
}

std::vector<const Sequence*> Batcher::Admit() {
  std::vector<const Sequence*> admitted;
  while (!preempted_.empty() || !queue_.empty()) {
    if (free_lanes_.empty() && !MakeLane()) break;
    if (free_lanes_.size() < LanesOfNext()) break;
    Sequences sequences = ResumesNext() ? ResumeNext() : StartNext();
    if (sequences.empty()) break;
    for (std::unique_ptr<Sequence>& sequence : sequences) {
      // What it begins with is held from now on.
      if (!sequence->idle()) {
        sequence->BeginAt(kv_.Share(sequence->blocks(), sequence->SharableNames()));
      }
      admitted.push_back(sequence.get());
      Insert(std::move(sequence), &running_);
    }
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
  bool in_flight = false;
  const auto preempt = [&](Sequence& sequence) {
    sequence.Preempt();
    in_flight |= sequence.in_flight();
  };
  if (BeamGroup* const group = victim.group(); group != nullptr) {
    group->Forget();
    for (Sequence* const member : group->members()) preempt(*member);
  } else {
    preempt(victim);
  }
  if (in_flight) return false;
  Retire();
  return true;
}

}  // namespace sirocco
