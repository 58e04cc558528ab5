// What running sequences have in device memory. Each holds one *lane* from admission to its end:
// its tokens, its block tables, what it asks of the sampler. A decode row is only a lane's number.
#pragma once

#include <cstdint>

namespace sirocco {

inline constexpr int kMaxLayerGroups = 4;
inline constexpr int kMaxTopLogprobs = 20;

// What a lane asks of the sampler beyond the highest logit. Bits of Lane::flags.
enum LaneFlag : uint32_t {
  kLaneBias = 1,       // Lanes::bias is set: bias, and -inf for ids not allowed or banned
  kLanePenalties = 2,  // Lanes::counts is kept, Lanes::token_flags is set
  kLaneBarred = 4,     // ids marked kTokenBarred may not be chosen before min_length
  kLaneNgrams = 8,     // no_repeat_ngram applies
  kLaneLogprobs = 16,  // report the chosen token's logprob, rank and `top_logprobs` alternatives
  // Of a beam search, with some of the options above: they act on log-probabilities instead of
  // logits, the best id that they leave is chosen, and the best `top_logprobs` (1 at least) are
  // reported with what they leave of each one's logprob. `counts` are not kept: who chooses among
  // these sets them.
  kLaneBeam = 32,
};

// Bits of Lanes::token_flags.
enum TokenFlag : uint8_t {
  kTokenInPrompt = 1,  // the repetition penalty counts it
  kTokenBarred = 2,    // an end or stop token
};

struct Lane {
  int32_t length;      // tokens known: the prompt's, and those sampled
  int32_t min_length;  // kLaneBarred: tokens known before barred ids may come
  uint32_t flags;
  float temperature;  // 0: greedy
  int32_t top_k;      // 0: off
  float top_p;        // 1: off
  float min_p;        // 0: off
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  int32_t no_repeat_ngram;
  int32_t top_logprobs;  // 0 ... kMaxTopLogprobs
  uint64_t seed;         // with `index` and the position, all that fixes a draw
  uint32_t index;
};

// All lanes, as arrays in device memory. A view; passed by value.
struct Lanes {
  Lane* lane;            // [max_lanes]
  int32_t* history;      // [max_lanes][max_length] token ids, by position
  int32_t* block_table;  // [max_lanes][groups][max_blocks] physical blocks, by logical block
  uint32_t* counts;      // [max_lanes][vocab_size] times an id was sampled
  uint8_t* token_flags;  // [max_lanes][vocab_size]
  float* bias;           // [max_lanes][vocab_size]
  int32_t max_lanes;
  int32_t max_length;
  int32_t groups;
  int32_t max_blocks;
  int32_t vocab_size;

  constexpr const int32_t* BlockTable(int lane_index, int group) const {
    return block_table + (int64_t{lane_index} * groups + group) * max_blocks;
  }
};

// One entry of a lane's block table that becomes valid with a step.
struct BlockUpdate {
  int32_t lane;
  int32_t group;
  int32_t logical;   // index in the table
  int32_t physical;  // the block
};

// A chosen or given token, as the host reads it. Logprobs are natural, of the raw logits.
struct TokenScore {
  int32_t token_id;
  float logprob;      // 0 unless asked
  int32_t rank;       // 1: the most probable; 0 unless asked
  int32_t top_count;  // alternatives below, the most probable first
  int32_t top_ids[kMaxTopLogprobs];
  float top_logprobs[kMaxTopLogprobs];
};

}  // namespace sirocco
