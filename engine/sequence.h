// A request as the engine keeps it, and the state of one of its generations.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/fair_queue.h"
#include "engine/kv_cache.h"
#include "engine/prefix_hash.h"
#include "engine/request.h"
#include "engine/token_stream.h"
#include "graphs/step.h"

namespace sirocco {

// What a sampled token does to its sequence.
enum class TokenRole : uint8_t {
  kText,       // it goes on
  kEndToken,   // ends it: the model's own end
  kStopToken,  // ends it: one of StopOptions::token_ids, also where it is an end token too
  kLast,       // ends it: max_new_tokens are reached
};

class BeamGroup;

// All that is fixed when a request comes. Immutable; shared by the engine's threads.
struct RequestContext {
  uint64_t number = 0;  // unique in the engine, ascending
  Request request;
  Clock::time_point came;
  std::shared_ptr<TokenStream> stream;
  std::vector<int32_t> end_ids;     // sorted; end tokens that end it
  std::vector<int32_t> stop_ids;    // sorted
  std::vector<int32_t> barred_ids;  // sorted; may not come among the first min_new_tokens
  std::vector<BlockHash> names;     // of the prompt's full blocks; none without a prefix cache

  int32_t prompt_length() const { return static_cast<int32_t>(request.prompt.size()); }
  bool scores_prompt() const { return request.logprobs && request.logprobs->prompt; }
  // Nothing is generated: one sequence scores the prompt for all n.
  bool only_scores() const { return request.max_new_tokens == 0; }
  // A beam search; else each sequence goes on from its own tokens alone.
  bool searches() const { return request.beam && !only_scores(); }
  int32_t sequences_to_run() const {
    if (only_scores()) return 1;
    return searches() ? request.beam->num_beams : request.n;
  }
  // What the token does that is the `count`-th generated one.
  TokenRole RoleOf(int32_t token_id, int32_t count) const;
};

// `hasher`: null without a prefix cache.
std::shared_ptr<const RequestContext> MakeRequestContext(uint64_t number, Request request,
                                                         std::shared_ptr<TokenStream> stream,
                                                         const std::vector<int32_t>& end_token_ids,
                                                         const PrefixHasher* hasher = nullptr);

// One generation, from its lane to its end. It may lose lane and blocks before that, and begin anew
// with all tokens it knows: the next one is sampled as if nothing had happened. Engine thread.
class Sequence {
 public:
  // `hasher`: as the context's. `share`: its client's. Both outlive the sequence.
  Sequence(std::shared_ptr<const RequestContext> context, int32_t index, int32_t lane,
           BlockTable blocks, const PrefixHasher* hasher = nullptr, ClientShare* share = nullptr);

  const RequestContext& context() const { return *context_; }
  int32_t index() const { return index_; }
  int32_t lane() const { return lane_; }
  BlockTable& blocks() { return blocks_; }
  const BlockTable& blocks() const { return blocks_; }

  ClientShare* share() const { return share_; }

  // --- beam search (engine/beam_group.h) ---
  // It is one of the group's beams: what it goes on from after each step the group says. All but
  // the first are idle until the prompt is done, which they share.
  void Join(std::shared_ptr<BeamGroup> group);
  BeamGroup* group() const { return group_.get(); }
  // It has a lane, and neither tokens of its own nor blocks yet.
  bool idle() const { return idle_; }
  // All that was launched is known, of the whole group. Goes on from what `parent` knows, which may
  // be itself, and from this token.
  void GoOnFrom(const Sequence& parent);
  void GoOnWith(int32_t token_id);

  // Who comes first: for lanes, for blocks and in a step. The higher priority, then the older.
  bool ComesBefore(const Sequence& other) const;

  // What the executor is to know before the first step; views the context and the tokens.
  LaneStart Start() const;

  // --- the prefix cache ---
  // Whether it may begin with blocks that are there: not where its prompt is scored.
  bool may_share() const { return hasher_ != nullptr && !context_->scores_prompt(); }
  // Names of the blocks that it may share: one token at least is computed.
  std::span<const BlockHash> SharableNames() const;
  // Names of the blocks that `computed` of the known tokens fill; none without a prefix cache.
  std::span<const BlockHash> FilledNames(int32_t computed) const;
  // So many tokens at the beginning have their KV; nothing is launched yet.
  void BeginAt(int32_t tokens) { cached_ = prefilled_ = tokens; }
  int32_t cached() const { return cached_; }
  // Its first chunk has ended, or one before it was preempted: what it found has been told.
  bool begun() const { return begun_; }
  void Begun() { begun_ = true; }

  // --- what is launched: known before the tokens are ---
  bool prefilling() const {
    return !preempted_ && !waits_for_group_ && prefilled_ < known_at_start_;
  }
  // So many of the tokens that it started with are cached, or in launched steps.
  int32_t prefilled() const { return prefilled_; }
  int32_t left_to_prefill() const { return prefilling() ? known_at_start_ - prefilled_ : 0; }
  // Nothing of its prompt is in a launched step.
  bool untouched() const { return prefilled_ == cached_; }
  // The prompt is done and another token may be sampled: an end by length is known beforehand.
  bool decoding() const {
    return !preempted_ && !waits_for_group_ && !prefilling() &&
           sampled_ < context_->request.max_new_tokens;
  }
  // A step may still be planned with it.
  bool goes_on() const { return prefilling() || decoding() || (waits_for_group_ && !preempted_); }
  // Tokens that the device knows when all that is launched has ended.
  int32_t length() const { return context_->prompt_length() + sampled_; }
  // A launched step that names it has not been collected.
  bool in_flight() const { return steps_in_flight_ > 0; }

  // Its next chunk was considered in the planning of this number.
  void Consider(uint64_t planning) { considered_ = planning; }
  bool considered(uint64_t planning) const { return considered_ == planning; }
  // The next at most `budget` of the tokens that it started with.
  PrefillChunk NextChunk(int32_t budget) const;
  void ChunkLaunched(const PrefillChunk& chunk);
  void DecodeLaunched();
  // One of the steps launched with it was collected, or given up.
  void StepEnded() { --steps_in_flight_; }

  // --- preemption ---
  // From now on no step is planned with it.
  void Preempt() { preempted_ = true; }
  bool preempted() const { return preempted_; }
  // No step has it any more, and lane and blocks were taken from it.
  void Rewind();
  void Resume(int32_t lane, BlockTable blocks);
  int32_t preemptions() const { return preemptions_; }

  // --- what is known ---
  std::span<const int32_t> tokens() const { return tokens_; }
  bool ended() const { return ended_; }
  // So many more tokens of the prompt were scored.
  void Scored(int32_t count) { scored_ += count; }
  // A token was sampled; its role tells whether the sequence has ended.
  TokenRole Append(int32_t token_id);
  void End() { ended_ = true; }
  // Ends it for a client that is gone, or out of time, since then.
  void Cancel(Clock::time_point since);
  const std::optional<Clock::time_point>& cancelled() const { return cancelled_; }

 private:
  void Know(int32_t token_id);

  std::shared_ptr<const RequestContext> context_;
  int32_t index_;
  int32_t lane_;
  BlockTable blocks_;
  std::vector<int32_t> tokens_;  // known: the prompt's, and those generated
  const PrefixHasher* hasher_;
  ClientShare* share_;
  std::shared_ptr<BeamGroup> group_;
  bool waits_for_group_ = false;  // a launched step has sampled, or the prompt is another's
  bool idle_ = false;
  std::vector<BlockHash> names_;  // of the full blocks of `tokens_`
  int32_t known_at_start_;  // tokens that a prefill computes: since Resume more than the prompt
  int32_t cached_ = 0;      // of them, those that need not be computed
  int32_t prefilled_ = 0;   // and those in launched steps
  int32_t sampled_ = 0;     // tokens that launched steps sample
  int32_t steps_in_flight_ = 0;
  int32_t generated_ = 0;  // tokens known
  int32_t scored_ = 0;     // of the prompt
  int32_t preemptions_ = 0;
  uint64_t considered_ = 0;
  bool preempted_ = false;
  bool begun_ = false;
  bool ended_ = false;
  std::optional<Clock::time_point> cancelled_;
};

}  // namespace sirocco
