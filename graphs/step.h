// What the engine asks of an executor, and what it gets back: plain views, no ownership. Views of
// a step need to live until its call returns; views of a result until the next launch or collect.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "kernels/lanes.h"

namespace sirocco {

// A sequence takes a lane. The lane's block tables are set by later steps' updates.
struct LaneStart {
  int32_t lane = 0;
  Lane state = {};                  // length = tokens.size(); flags say which of the rest counts
  std::span<const int32_t> tokens;  // the prompt, and after a preemption what was generated
  int32_t prompt_length = 0;        // of tokens, the prompt's: the rest counts as output
  std::span<const std::pair<int32_t, float>> logit_bias;  // kLaneBias
  std::span<const int32_t> allowed_ids;                   // kLaneBias; empty: all
  std::span<const int32_t> banned_ids;                    // kLaneBias
  std::span<const int32_t> barred_ids;                    // kLaneBarred: end and stop ids
};

// A lane goes on from what another one knows: it takes over the other's tokens and block tables,
// with `token` in place of the newest, which the last step sampled. Both were started alike but for
// their tokens, and both have as many.
struct LaneFork {
  int32_t lane = 0;
  int32_t parent = 0;  // itself: only its newest token becomes another
  int32_t token = 0;
  // Where the lane keeps counts (kLanePenalties), which sampling leaves alone in a kLaneBeam's:
  // times that the token is in the output, this one included.
  int32_t count = 0;
};

// A block whose content another one gets.
struct BlockCopy {
  int32_t group = 0;
  int32_t from = 0;  // physical blocks
  int32_t to = 0;
};

// A chunk of one sequence's prompt. Chunks of a step may read blocks that others of it write: in
// every layer the keys and values of all rows are written before any row reads.
struct PrefillChunk {
  int32_t lane = 0;
  int32_t first_position = 0;  // tokens before it have their KV
  int32_t count = 0;
  bool sample = false;  // it ends the prompt: sample the next token
  // Positions of the chunk whose next token is to be scored, counted from its first (prompt
  // logprobs); 0: none. At most count.
  int32_t score_count = 0;
  int32_t score_top = 0;  // alternatives a scored token
};

struct PrefillStep {
  std::span<const BlockUpdate> block_updates = {};
  std::span<const PrefillChunk> chunks =
      {};  // counts sum to at most prefill_chunk_size; lanes distinct
};

struct PrefillResult {
  std::span<const TokenScore> sampled;  // of the chunks with `sample`, in their order
  std::span<const TokenScore> scored;   // of all score_counts, in the chunks' order
};

// One token for every lane named: a batch of exactly this size.
struct DecodeStep {
  std::span<const BlockUpdate> block_updates = {};
  std::span<const int32_t> lanes = {};  // distinct; 1 ... max_batch_size of them
  // Done in this order before the step: of blocks that several lanes have, where one is to write.
  std::span<const BlockCopy> block_copies = {};
};

struct DecodeResult {
  std::span<const TokenScore> sampled;  // by row
};

// What is launched at once: the prefill part, then the decode part. One of them may be empty; a
// lane is named by one of them only.
struct Step {
  PrefillStep prefill = {};
  DecodeStep decode = {};

  bool empty() const { return prefill.chunks.empty() && decode.lanes.empty(); }
};

struct StepResult {
  PrefillResult prefill;
  DecodeResult decode;
  double prefill_seconds = 0;  // the device's time for each part; 0 if it was empty
  double decode_seconds = 0;
};

}  // namespace sirocco
