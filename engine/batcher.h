// Continuous batching, as pure logic: which sequence runs in which step, in which lane, with which
// blocks. It has no thread, no clock and no device; the engine loop gives it time and results.
//
// Between two steps: requests join the queue, ended sequences leave, and the queue's head takes
// lanes while there are lanes and blocks (in the order of FairQueue; nobody overtakes). A step is a
// prefill of the next chunks of the sequences whose prompt is not done, in that order too, or a
// decode of all whose prompt is done: a batch of exactly their number. Where there is something for
// both they take turns. So who comes waits for no more than what is launched, a first token does
// not wait for the others' next ones, and of each two steps together itl_factor bounds the time:
// of each two, or, for the prompt of a client that was given less than those who decode, of a dozen
// on average (prompt_turns.h). What is bounded so is measured by steps of the batch that is soon
// there (StepCost::Beside), so that hundreds who come at once are read in few groups.
//
// A client has no more of its prompts in lanes than a step may take, so that the prompt of another,
// who comes now, waits for no more than that; and where it has more lanes than its weight gives it,
// one is taken back for another who waits for his (MakeLane).
//
// A sequence is admitted when there are blocks for its prompt and for a little more of each that
// runs; nothing is set aside for what it may generate. So blocks may become short. Then the newest
// sequence of the lowest priority is preempted: it loses lane and blocks (what they hold stays
// cached while nobody needs the room), waits in front of the queue, and begins anew with all the
// tokens that it knows; its client sees a pause and nothing else. The oldest of the highest
// priority always goes on, and who was preempted waits for more room each time (HasRoom), so that
// the device does not compute the same again and again.
//
// With a prefix cache a sequence begins with the full blocks that are there already when its first
// chunk is planned: blocks of sequences that have ended, and of those that run, its own request's
// others among them. A prompt's block can be found from the launch of the step that computes it on,
// a generated one's when its tokens are known.
//
// A beam search is a group of sequences (beam_group.h), which take lanes and lose them together: it
// waits until there are as many as it has beams, and room for all of these. Nobody loses a lane for
// it but by ending.
//
// Where the executor runs ahead, step n+1 is planned and launched before the tokens of step n are
// known: by lengths, which are. A sequence that reaches its length leaves the batch at once. One
// whose end only a token, the delivery or its client tells has a row in the step launched
// meanwhile: an overrun row, which writes in its own blocks alone and whose token nobody gets. Lane
// and blocks are free when the last step launched with them has ended.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/beam_group.h"
#include "engine/events.h"
#include "engine/fair_queue.h"
#include "engine/kv_cache.h"
#include "engine/observer.h"
#include "engine/prefix_hash.h"
#include "engine/prompt_rate.h"
#include "engine/prompt_turns.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "engine/step_cost.h"
#include "graphs/step.h"

namespace sirocco {

struct BatcherOptions {
  int32_t max_batch_size = 1;        // lanes
  int32_t prefill_chunk_size = 512;  // prompt tokens a step
  // Rows that the executor fills a step of prompts up to, ascending; with more tokens, or where
  // there are none, it has as many rows as tokens.
  std::vector<int32_t> prefill_sizes = {};
  double itl_factor = 3;  // while others decode, no round longer than so many of theirs
  int32_t block_size = 16;
  std::vector<int32_t> kv_blocks;                     // of each layer group
  std::vector<LayerGroup> groups = {};                // as EngineOptions'
  std::map<std::string, double> client_weights = {};  // positive; 1 for those not named
  int32_t run_ahead = 0;                 // steps planned beside the oldest that has not ended
  const PrefixHasher* hasher = nullptr;  // null: no prefix cache; as the contexts'; outlives all
};

class Batcher {
 public:
  explicit Batcher(const BatcherOptions& options);

  // Whether the request's sequences could ever have their blocks. Any thread.
  bool CanEverRun(const Request& request) const {
    return kv_.CanEverHold(SlotsOf(request), request.beam ? request.beam->num_beams : 1);
  }

  // --- between steps ---
  // The request joins the queue; or it is refused, since at the rate at which prompts are computed
  // its first token would come after its deadline: then the time predicted until that token.
  std::optional<Clock::duration> Enqueue(std::shared_ptr<const RequestContext> context,
                                         Clock::time_point now);
  // A sequence whose end the delivery has found. It may have ended meanwhile.
  void EndSequence(uint64_t request, int32_t index);

  // Ends the requests whose client is gone or whose deadline has passed. `look`: a stream was
  // cancelled since the last call; without it only deadlines are watched.
  struct Ended {
    std::shared_ptr<const RequestContext> context;
    absl::StatusCode reason = absl::StatusCode::kCancelled;
  };
  std::vector<Ended> EndCancelled(Clock::time_point now, bool look);
  void EndAll();
  // The sequences so ended whose lane and blocks have become free since the last call: when each
  // was cancelled, or its deadline.
  std::vector<Clock::time_point> TakeFreed() { return std::exchange(freed_, {}); }

  // Those preempted and the queue's head take lanes. The sequences returned are to be started on
  // the executor; they live until they end.
  std::vector<const Sequence*> Admit();

  // --- a step ---
  // Its views are valid until the step has ended. An empty one: nothing can be launched now, or
  // should be before the oldest step has ended, and there is no such step. At most run_ahead steps
  // that were planned may not have ended.
  Step PlanStep();
  // What the next step computes hangs on the tokens of those in flight: they should end first, so
  // that all go on in one step.
  bool searches() const;
  // How lanes go on from others since the last call, in this order; before the next step.
  std::vector<LaneFork> TakeForks() { return std::exchange(forks_, {}); }
  // Steps planned and not ended.
  int32_t in_flight() const { return static_cast<int32_t>(planned_ - finished_); }

  struct StepFigures {
    int32_t prefill_tokens = 0;  // computed
    // Of sequences whose first chunk it was: prompt tokens looked for in the prefix cache, and
    // found.
    int64_t prefix_queries = 0, prefix_hits = 0;
    int32_t decode_rows = 0;   // the batch
    int32_t overrun_rows = 0;  // of it, rows of sequences that had ended
  };
  // What the oldest planned step gave; `time`: when it ended. INTERNAL: the result does not fit the
  // plan.
  absl::StatusOr<StepFigures> FinishStep(const StepResult& result, Clock::time_point time,
                                         std::vector<Event>* events);
  // No planned step will end: the device has failed.
  void AbandonSteps();

  // Sequences that were preempted since the last call.
  int32_t TakePreemptions() { return std::exchange(preemptions_, 0); }

  // --- figures ---
  bool empty() const { return requests_.empty(); }
  EngineGauges gauges() const;
  // Requests that could start at once if they came now: 0 while others wait.
  int32_t startable() const {
    const bool nobody_waits = queue_.empty() && preempted_.empty();
    return nobody_waits ? static_cast<int32_t>(free_lanes_.size()) : 0;
  }

 private:
  using Sequences = std::vector<std::unique_ptr<Sequence>>;

  // A request from Enqueue until its last sequence has ended.
  struct Live {
    std::shared_ptr<const RequestContext> context;
    ClientShare* share = nullptr;
    int32_t started = 0;  // sequences that took a lane
    int32_t running = 0;  // of them, not ended yet

    bool waits() const { return started == 0; }
    bool all_started() const { return started == context->sequences_to_run(); }
  };

  // A step from its planning to its end: chunks, or lanes. Kept to reuse the memory.
  struct PlannedStep {
    std::vector<BlockUpdate> prefill_updates, decode_updates;
    std::vector<BlockCopy> decode_copies;
    std::vector<PrefillChunk> chunks;
    std::vector<int32_t> lanes;
    std::vector<Sequence*> prefill_rows, decode_rows;  // of chunks, of lanes
    bool beside = false;                               // chunks: sequences decode meanwhile
    bool full = false;                                 // no further prompt token may be in it
  };

  PlannedStep& StepOf(uint64_t number) { return steps_[number % steps_.size()]; }
  template <typename Function>
  void ForEachLive(const Function& function) {
    for (Sequences* sequences : {&running_, &preempted_}) {
      for (const std::unique_ptr<Sequence>& sequence : *sequences) function(*sequence);
    }
  }
  static void Insert(std::unique_ptr<Sequence> sequence, Sequences* sequences);
  std::span<const BlockHash> SharableNames(const RequestContext& context) const;
  // Who is to take a lane.
  struct Candidate {
    const Request& request;
    std::span<const BlockHash> names;  // of its blocks
    int32_t known = 0;                 // tokens
    int32_t preemptions = 0;
    int32_t idle_beams = 0;   // that take a lane with it
    int32_t other_beams = 0;  // that do, and have as many tokens
  };
  bool HasRoom(const Candidate& candidate);
  // The first of those preempted, or of the queue, with lanes: a sequence, or all of a group. None:
  // it must wait.
  Sequences ResumeNext();
  Sequences StartNext();
  bool ResumesNext() const;
  // The lanes that it takes at once.
  size_t LanesOfNext() const;
  int32_t TakeLane(ClientShare* share);
  // For the queue's head, whose client has fewer than its share of the lanes: awaits one that comes
  // back, or preempts a sequence of a client with more. True: its lane is free now.
  bool MakeLane();

  // Gives the sequence its blocks for positions up to `slots`. False: they are short, and now no
  // other may take any before it.
  bool Extend(Sequence& sequence, int32_t first_position, int32_t slots,
              std::vector<BlockUpdate>* updates, std::vector<BlockCopy>* copies);
  // Preempts the last sequence of those that run. True: its blocks can be had at once.
  bool MakeRoom();
  // It, or all of its group. True: lane and blocks are free; else when their step has ended.
  bool Preempt(Sequence& victim);
  // A lane with its blocks will be free when the steps in flight have ended.
  bool SomethingReturns() const;
  void LookAtBatch();
  // Whether the client's prompt has an advantage over those who decode: with all that is left of it
  // the client was given no more than any of theirs.
  bool IsBehind(const Sequence& sequence) const;
  // Whether prompts go before the batch.
  bool PromptsGoFirst();
  // Whether what is there of prompts is better read together with what comes next.
  bool Gathers() const;
  PrefillBudget BudgetFor(const Sequence* next) const;
  void PlanDecodes(PlannedStep& step);
  void PlanChunks(PlannedStep& step);
  Sequence* NextToPrefill();
  // False: blocks are short.
  bool PlanDecode(Sequence& sequence, PlannedStep& step);
  // How many prompt tokens of one that has the advantage the step takes, where it may have `most`.
  int32_t PartOf(const Sequence& sequence, int32_t most, const PrefillBudget& budget) const;
  bool PlanChunk(Sequence& sequence, PrefillBudget& budget, PlannedStep& step);
  void Learn(const PlannedStep& step, const StepResult& result, const StepFigures& figures);
  void LearnPrompts(int32_t decode_rows, double decode_seconds);
  static void CountPrefill(const PlannedStep& step, StepFigures* figures);
  void CountWaiting(const Live& live, int sign);
  // At least so long takes it until the request has its first token; none: nothing is known yet.
  std::optional<Clock::duration> PredictFirstToken(const RequestContext& context,
                                                   const ClientShare* share) const;
  static absl::Status CheckResult(const PlannedStep& step, const StepResult& result);
  void FinishPrefill(const PlannedStep& step, const PrefillResult& result, Clock::time_point time,
                     std::vector<Event>* events);
  void FinishChunk(Sequence& sequence, const PrefillChunk& chunk, const TokenScore* sampled,
                   std::span<const TokenScore> scored, Clock::time_point time,
                   std::vector<Event>* events);
  void TokenCame(Sequence& sequence, const TokenScore& score, Clock::time_point time,
                 std::vector<Event>* events);
  void Advance(BeamGroup& group, Clock::time_point time, std::vector<Event>* events);
  // Takes the ended sequences out of the batch, and their requests if nothing of them is left.
  // Frees the lanes and blocks of those that no step has any more.
  void Retire();
  void Forget(const Sequence& sequence);
  void Free(Sequence& sequence);

  const BatcherOptions options_;
  KvCache kv_;
  std::map<uint64_t, Live> requests_;
  StepCost cost_;
  PromptRate prompt_rate_;
  // Prompts' step that ended, until the decode beside it has too.
  struct {
    PrefillWork work;
    double seconds = 0;
    bool beside = false, full = false;
  } prompts_;
  FairQueue queue_;  // requests that have sequences to start
  int32_t waiting_requests_ = 0;
  int64_t waiting_tokens_ = 0;
  // Each in the order of Sequence::ComesBefore.
  Sequences running_;    // not ended, with a lane
  Sequences preempted_;  // not ended, without
  Sequences leaving_;    // ended, and in a step that has not; in any order
  int32_t preemptions_ = 0;
  std::vector<int32_t> free_lanes_;       // the last is taken next
  bool short_of_blocks_ = false;          // of the step that is planned
  std::vector<KvCache::Need> needs_;      // of those running, while one is admitted
  const BlockTable no_blocks_;            // of those of them that have none
  std::vector<LaneFork> forks_;           // see TakeForks
  std::vector<Clock::time_point> freed_;  // see TakeFreed
  bool look_ = false;                     // a request was cancelled before it came
  Clock::time_point next_deadline_ = Clock::time_point::max();

  std::vector<PlannedStep> steps_;  // [run_ahead + 1]
  uint64_t planned_ = 0;            // steps, ever
  uint64_t finished_ = 0;
  uint64_t planning_ = 0;  // calls of PlanStep, ever
  PromptTurns turns_;
  // Those that decode, when a step is planned.
  struct {
    bool any = false;
    int32_t priority = 0;    // the highest
    double served = 0;       // of their clients the least
    int32_t joined = 0;      // rows, with those whose prompts a few steps might end
    int32_t first_left = 0;  // prompt tokens of the oldest that has some
  } batch_;
  // A lane comes back from a sequence in flight, or was taken from one, for the queue's head, whose
  // client has fewer than its share: the next step is planned when it can have it.
  bool awaits_lane_ = false;
};

}  // namespace sirocco
