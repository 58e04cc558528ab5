// A request as the engine keeps it, and the state of one of its generations.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/kv_cache.h"
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

// All that is fixed when a request comes. Immutable; shared by the engine's threads.
struct RequestContext {
  uint64_t number = 0;  // unique in the engine, ascending
  Request request;
  Clock::time_point came;
  std::shared_ptr<TokenStream> stream;
  std::vector<int32_t> end_ids;     // sorted; end tokens that end it
  std::vector<int32_t> stop_ids;    // sorted
  std::vector<int32_t> barred_ids;  // sorted; may not come among the first min_new_tokens

  int32_t prompt_length() const { return static_cast<int32_t>(request.prompt.size()); }
  bool scores_prompt() const { return request.logprobs && request.logprobs->prompt; }
  // Nothing is generated: one sequence scores the prompt for all n.
  bool only_scores() const { return request.max_new_tokens == 0; }
  int32_t sequences_to_run() const { return only_scores() ? 1 : request.n; }
};

std::shared_ptr<const RequestContext> MakeRequestContext(uint64_t number, Request request,
                                                         std::shared_ptr<TokenStream> stream,
                                                         const std::vector<int32_t>& end_token_ids);

// One generation, from its lane to its end. Engine thread.
class Sequence {
 public:
  Sequence(std::shared_ptr<const RequestContext> context, int32_t index, int32_t lane,
           BlockTable blocks);

  const RequestContext& context() const { return *context_; }
  int32_t index() const { return index_; }
  int32_t lane() const { return lane_; }
  BlockTable& blocks() { return blocks_; }

  // What the executor is to know before the first step; views the context.
  LaneStart Start() const;

  bool prefilling() const { return prefilled_ < context_->prompt_length(); }
  bool ended() const { return ended_; }
  int32_t length() const { return context_->prompt_length() + generated_; }  // tokens known

  // The next at most `budget` tokens of the prompt.
  PrefillChunk NextChunk(int32_t budget) const;
  void ChunkDone(int32_t count) { prefilled_ += count; }

  // A token was sampled; its role tells whether the sequence has ended.
  TokenRole Append(int32_t token_id);
  void End() { ended_ = true; }

 private:
  std::shared_ptr<const RequestContext> context_;
  int32_t index_;
  int32_t lane_;
  BlockTable blocks_;
  int32_t prefilled_ = 0;  // prompt tokens with KV
  int32_t generated_ = 0;
  bool ended_ = false;
};

}  // namespace sirocco
