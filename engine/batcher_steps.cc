// The batcher's steps: what one computes, and what it gave.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/batcher.h"

namespace sirocco {
namespace {

// Steps of prompts that are soon, to those that decode.
constexpr int64_t kSoon = 8;

absl::Status CheckSize(const char* what, size_t got, size_t planned) {
  if (got == planned) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the executor returned ", got, " ", what, ", the step planned ", planned));
}

}  // namespace

Step Batcher::PlanStep() {
  if (std::exchange(awaits_lane_, false) && in_flight() > 0) return {};
  PlannedStep& step = StepOf(planned_);
  step.prefill_updates.clear();
  step.decode_updates.clear();
  step.decode_copies.clear();
  step.chunks.clear();
  step.lanes.clear();
  step.prefill_rows.clear();
  step.decode_rows.clear();
  ++planning_;
  LookAtBatch();
  const bool prompts_first = PromptsGoFirst();
  if (prompts_first) PlanChunks(step);
  if (step.chunks.empty()) PlanDecodes(step);
  if (!prompts_first && step.lanes.empty()) {
    LookAtBatch();  // some may have been preempted
    PlanChunks(step);
  }
  if (!step.lanes.empty()) {
    turns_.Batch(BudgetFor(nullptr).allowed());
  } else if (step.chunks.empty()) {
    turns_.Nothing();
  }
  const Step plan = {.prefill = {.block_updates = step.prefill_updates, .chunks = step.chunks},
                     .decode = {.block_updates = step.decode_updates,
                                .lanes = step.lanes,
                                .block_copies = step.decode_copies}};
  if (!plan.empty()) ++planned_;
  return plan;
}

void Batcher::PlanDecodes(PlannedStep& step) {
  short_of_blocks_ = false;
  for (size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    if (sequence.decoding() && !PlanDecode(sequence, step)) {
      // Once more where another, behind it, made room; where it was itself, its place is the
      // next's.
      if (!short_of_blocks_ && MakeRoom()) continue;
      short_of_blocks_ = true;
    }
    ++i;
  }
}

Sequence* Batcher::NextToPrefill() {
  Sequence* next = nullptr;
  const auto place = [](const Sequence& sequence) {
    return std::pair(-int64_t{sequence.context().request.priority}, sequence.share()->served);
  };
  // In the order of age: of one client the oldest is next.
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (!sequence->prefilling() || sequence->considered(planning_)) continue;
    if (next == nullptr || place(*sequence) < place(*next)) next = sequence.get();
  }
  return next;
}

void Batcher::LookAtBatch() {
  batch_ = {};
  int64_t left = kSoon * options_.prefill_chunk_size;  // in the order of age
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->prefilling() && left > 0) {
      if (batch_.first_left == 0) batch_.first_left = sequence->left_to_prefill();
      left -= sequence->left_to_prefill();
      batch_.joined += left >= 0 ? 1 : 0;
    }
    if (!sequence->decoding()) continue;
    ++batch_.joined;
    const int32_t priority = sequence->context().request.priority;
    const double served = sequence->share()->served;
    batch_.priority = batch_.any ? std::max(batch_.priority, priority) : priority;
    batch_.served = batch_.any ? std::min(batch_.served, served) : served;
    batch_.any = true;
  }
  if (waiting_tokens_ > 0 && left > 0) {
    const int64_t ended = left * waiting_requests_ / waiting_tokens_;  // by their mean length
    const int64_t start = std::min<int64_t>(waiting_requests_, free_lanes_.size());
    batch_.joined += static_cast<int32_t>(std::min(ended, start));
  }
}

bool Batcher::IsBehind(const Sequence& sequence) const {
  const ClientShare& share = *sequence.share();
  return batch_.any && sequence.context().request.priority >= batch_.priority &&
         share.served + sequence.left_to_prefill() / share.weight <= batch_.served;
}

PrefillBudget Batcher::BudgetFor(const Sequence* next) const {
  const int32_t most = options_.prefill_chunk_size;
  if (!batch_.any) return cost_.Alone(most);
  PrefillBudget budget = cost_.Beside(options_.itl_factor, most, batch_.joined);
  // Where not even the first prompt ends in it, a step brings nobody into the batch.
  if (budget.TokensFrom(0) < batch_.first_left) budget = cost_.Beside(options_.itl_factor, most);
  if (next != nullptr && IsBehind(*next)) {
    budget.Lend(turns_.Loan(budget.allowed()), turns_.had());
  }
  return budget;
}

bool Batcher::Gathers() const {
  PrefillWork prompts;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (!sequence->prefilling()) continue;
    if (!sequence->untouched()) return false;
    prompts.Add(sequence->prefilled(), sequence->left_to_prefill());
  }
  return cost_.MostlyStart(prompts);
}

bool Batcher::PromptsGoFirst() {
  if (!batch_.any) return true;
  const Sequence* const next = NextToPrefill();
  if (next == nullptr) return false;
  if (!IsBehind(*next)) return turns_.MayHave(/*few=*/Gathers());
  if (!turns_.prompts_were_last()) return true;
  // Another step of prompts before the batch's, where what the round has left is worth a start.
  const PrefillBudget budget = BudgetFor(next);
  return budget.allowed() > 0 && turns_.had() > 0 &&
         budget.TokensFrom(next->prefilled()) >=
             std::min(StepCost::kLeast, next->left_to_prefill());
}

void Batcher::PlanChunks(PlannedStep& step) {
  short_of_blocks_ = false;
  step.beside = batch_.any;
  const Sequence* const first = NextToPrefill();
  PrefillBudget budget = BudgetFor(first);
  const bool on_loan = first != nullptr && IsBehind(*first);
  step.full = false;
  const ClientShare* ends = nullptr;  // whose prompt ends in the step
  for (Sequence* next; !step.full && (next = NextToPrefill()) != nullptr;) {
    if (!IsBehind(*next)) budget.Reclaim();
    if (ends != nullptr && next->share() != ends) {
      // Another's prompt, who is not before it, holds up its first token by little.
      budget.HoldUpNoMore();
      ends = nullptr;
    }
    if (!PlanChunk(*next, budget, step)) {
      if (!short_of_blocks_ && MakeRoom()) continue;  // it may have been itself
      short_of_blocks_ = true;
    }
    next->Consider(planning_);
    if (!step.chunks.empty() && step.chunks.back().sample) ends = step.prefill_rows.back()->share();
  }
  if (step.chunks.empty()) return;
  if (!step.beside) {
    turns_.PromptsAlone();
  } else if (on_loan) {
    turns_.PromptsOnLoan(budget.taken(), budget.allowed());
  } else {
    turns_.Prompts(budget.taken());
  }
}

bool Batcher::Extend(Sequence& sequence, int32_t first_position, int32_t slots,
                     std::vector<BlockUpdate>* updates, std::vector<BlockCopy>* copies) {
  BlockTable& blocks = sequence.blocks();
  const bool takes =
      kv_.Missing(blocks, slots) > 0 || (copies != nullptr && kv_.Shares(blocks, first_position));
  if (short_of_blocks_ && takes) return false;
  return kv_.Extend(blocks, first_position, slots, sequence.lane(), updates, copies);
}

bool Batcher::PlanDecode(Sequence& sequence, PlannedStep& step) {
  // Its newest token gets its KV in this step.
  const int32_t length = sequence.length();
  std::vector<BlockCopy>* const copies =
      sequence.group() != nullptr ? &step.decode_copies : nullptr;
  if (!Extend(sequence, length - 1, length, &step.decode_updates, copies)) return false;
  step.lanes.push_back(sequence.lane());
  step.decode_rows.push_back(&sequence);
  sequence.DecodeLaunched();
  return true;
}

int32_t Batcher::PartOf(const Sequence& sequence, int32_t most, const PrefillBudget& budget) const {
  const int32_t left = sequence.left_to_prefill();
  if (left <= most) return left;
  // A rest that costs less than another step's start is read with the part before it.
  PrefillWork rest;
  rest.Add(sequence.prefilled() + most, left - most);
  if (budget.lends() && left <= budget.tokens() && cost_.MostlyStart(rest)) return left;
  // What is lent is no more than it needs: in as many parts, and all of one size.
  const int32_t parts = (left + most - 1) / most;
  return (left + parts - 1) / parts;
}

bool Batcher::PlanChunk(Sequence& sequence, PrefillBudget& budget, PlannedStep& step) {
  if (sequence.untouched()) {
    // More may be there than when it was admitted.
    sequence.BeginAt(kv_.Share(sequence.blocks(), sequence.SharableNames()));
  }
  int32_t most = budget.TokensFrom(sequence.prefilled());
  if (most < sequence.left_to_prefill() && !budget.lends()) {
    budget.FillUp(options_.prefill_sizes, sequence.prefilled());
    most = budget.TokensFrom(sequence.prefilled());
  }
  step.full = most == 0;
  if (step.full) return true;
  const int32_t count = IsBehind(sequence) ? PartOf(sequence, most, budget)
                                           : std::min(most, sequence.left_to_prefill());
  const PrefillChunk chunk = sequence.NextChunk(count);
  const int32_t end = chunk.first_position + chunk.count;
  if (!Extend(sequence, chunk.first_position, end, &step.prefill_updates, nullptr)) return false;
  kv_.Name(sequence.blocks(), sequence.FilledNames(end));
  step.chunks.push_back(chunk);
  step.prefill_rows.push_back(&sequence);
  sequence.ChunkLaunched(chunk);
  budget.Take(chunk.first_position, chunk.count);
  step.full = chunk.count >= most;
  return true;
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
  CountPrefill(step, &figures);
  figures.decode_rows = static_cast<int32_t>(step.decode_rows.size());
  for (size_t row = 0; row < step.decode_rows.size(); ++row) {
    Sequence& sequence = *step.decode_rows[row];
    sequence.StepEnded();
    if (sequence.ended()) {
      ++figures.overrun_rows;
    } else {
      queue_.Serve(sequence.share(), 1);
      TokenCame(sequence, result.decode.sampled[row], time, events);
    }
  }
  Learn(step, result, figures);
  ++finished_;
  Retire();
  return figures;
}

void Batcher::Learn(const PlannedStep& step, const StepResult& result, const StepFigures& figures) {
  if (step.chunks.empty()) return LearnPrompts(figures.decode_rows, result.decode_seconds);
  // Those that decoded are gone, or prompts had two steps.
  if (prompts_.work.tokens > 0) LearnPrompts(0, 0);
  for (const PrefillChunk& chunk : step.chunks) {
    prompts_.work.Add(chunk.first_position, chunk.count);
  }
  prompts_.seconds = result.prefill_seconds;
  prompts_.beside = step.beside;
  prompts_.full = step.full;
  if (!step.beside) LearnPrompts(0, 0);
}

void Batcher::LearnPrompts(int32_t decode_rows, double decode_seconds) {
  cost_.Add(prompts_.work, prompts_.seconds, decode_rows, decode_seconds);
  if (prompts_.full && prompts_.work.tokens > 0) {
    prompt_rate_.Add(decode_rows > 0, static_cast<int32_t>(prompts_.work.tokens),
                     prompts_.seconds + decode_seconds);
  }
  prompts_ = {};
}

void Batcher::CountPrefill(const PlannedStep& step, StepFigures* figures) {
  for (size_t row = 0; row < step.chunks.size(); ++row) {
    const PrefillChunk& chunk = step.chunks[row];
    Sequence& sequence = *step.prefill_rows[row];
    figures->prefill_tokens += chunk.count;
    if (sequence.begun()) continue;
    sequence.Begun();
    if (!sequence.may_share()) continue;
    figures->prefix_queries += sequence.context().prompt_length();
    figures->prefix_hits += sequence.cached();
  }
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
      queue_.Serve(sequence.share(), chunk.count);
      FinishChunk(sequence, chunk, token, scored.first(chunk.score_count), time, events);
    }
    scored = scored.subspan(chunk.score_count);
  }
}

void Batcher::FinishChunk(Sequence& sequence, const PrefillChunk& chunk, const TokenScore* sampled,
                          std::span<const TokenScore> scored, Clock::time_point time,
                          std::vector<Event>* events) {
  const uint64_t number = sequence.context().number;
  if (sequence.index() == 0 && !sequence.begun() && sequence.cached() > 0) {
    events->push_back({number, CachedEvent{sequence.cached()}});
  }
  for (const TokenScore& score : scored) events->push_back({number, PromptScoreEvent{score}});
  sequence.Scored(static_cast<int32_t>(scored.size()));
  if (sampled != nullptr) {
    TokenCame(sequence, *sampled, time, events);
  } else if (sequence.context().only_scores() &&
             chunk.first_position + chunk.count == sequence.context().prompt_length()) {
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

void Batcher::Advance(BeamGroup& group, Clock::time_point time, std::vector<Event>* events) {
  if (!group.forked()) {
    events->push_back({group.members().front()->context().number, SearchingEvent{time}});
  }
  group.Advance(kv_, &forks_);
  if (group.done()) {
    group.Answer(time, events);
    for (Sequence* const member : group.members()) member->End();
    return;
  }
  for (Sequence* const member : group.members()) {
    const auto computed = static_cast<int32_t>(member->tokens().size()) - 1;
    kv_.Name(member->blocks(), member->FilledNames(computed));
  }
}

void Batcher::TokenCame(Sequence& sequence, const TokenScore& score, Clock::time_point time,
                        std::vector<Event>* events) {
  if (BeamGroup* const group = sequence.group(); group != nullptr) {
    // A group that was preempted meanwhile computes the step again.
    if (!sequence.preempted() && group->Tell(sequence, score)) Advance(*group, time, events);
    return;
  }
  const TokenRole role = sequence.Append(score.token_id);
  // All but the newest token have their KV.
  const auto computed = static_cast<int32_t>(sequence.tokens().size()) - 1;
  kv_.Name(sequence.blocks(), sequence.FilledNames(computed));
  events->push_back(
      {sequence.context().number,
       TokenEvent{.index = sequence.index(), .role = role, .time = time, .score = score}});
}

}  // namespace sirocco
