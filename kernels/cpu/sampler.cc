#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/philox.h"

namespace sirocco::cpu {
namespace {

constexpr float kBarred = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

float Clamped(float x) {
  if (!(x >= -kLargest)) return -kLargest;  // a NaN too
  return x <= kLargest ? x : kLargest;
}

void ClampLogits(float* logits, int32_t count) {
  for (int32_t i = 0; i < count; ++i) logits[i] = Clamped(logits[i]);
}

// The order of all choices: higher logit first, then lower id.
struct Better {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  }
};

float Highest(const float* logits, int32_t count) {
  std::array<float, 16> lanes;  // a loop that compilers turn into vectors
  lanes.fill(kBarred);
  int32_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int32_t l = 0; l < 16; ++l) lanes[l] = std::max(lanes[l], logits[i + l]);
  }
  for (; i < count; ++i) lanes[0] = std::max(lanes[0], logits[i]);
  return *std::max_element(lanes.begin(), lanes.end());
}

int32_t ArgMax(const float* logits, int32_t count) {
  const float* end = logits + count;
  const float* at = std::find(logits, end, Highest(logits, count));
  return at == end ? 0 : static_cast<int32_t>(at - logits);
}

// ---- What comes before the temperature -----------------------------------------------------

void AddBiasTo(const Lanes& lanes, int32_t lane, float* logits) {
  const float* bias = lanes.bias + int64_t{lane} * lanes.vocab_size;
  for (int32_t i = 0; i < lanes.vocab_size; ++i) {
    logits[i] = bias[i] == kBarred ? kBarred : Clamped(logits[i] + bias[i]);
  }
}

// Repetition: Keskar et al., 2019, over prompt and output; presence and frequency: over the output.
void Penalise(const Lanes& lanes, int32_t lane, float* logits) {
  const Lane& state = lanes.lane[lane];
  const int64_t row = int64_t{lane} * lanes.vocab_size;
  const uint32_t* counts = lanes.counts + row;
  const uint8_t* flags = lanes.token_flags + row;
  for (int32_t i = 0; i < lanes.vocab_size; ++i) {
    if (counts[i] == 0 && (flags[i] & kTokenInPrompt) == 0) continue;
    float logit = logits[i];
    if (logit == kBarred) continue;
    logit = logit > 0 ? logit / state.repetition_penalty : logit * state.repetition_penalty;
    if (counts[i] > 0) {
      logit -= state.presence_penalty;
      logit -= state.frequency_penalty * static_cast<float>(counts[i]);
    }
    logits[i] = Clamped(logit);
  }
}

// Bars what would complete an n-gram that the tokens hold already.
void BarNgrams(const Lanes& lanes, int32_t lane, float* logits) {
  const Lane& state = lanes.lane[lane];
  const int32_t* history = lanes.history + int64_t{lane} * lanes.max_length;
  const int32_t prefix = state.no_repeat_ngram - 1;
  if (prefix < 0) return;
  const int32_t* last = history + state.length - prefix;
  for (int32_t i = 0; i + prefix < state.length; ++i) {
    if (std::equal(last, history + state.length, history + i)) {
      logits[history[i + prefix]] = kBarred;
    }
  }
}

void BarTokens(const Lanes& lanes, int32_t lane, float* logits) {
  const uint8_t* flags = lanes.token_flags + int64_t{lane} * lanes.vocab_size;
  for (int32_t i = 0; i < lanes.vocab_size; ++i) {
    if ((flags[i] & kTokenBarred) != 0) logits[i] = kBarred;
  }
}

// Applies the options of `steps` (lane flags) to a copy of `raw`. Returns the option that left no
// id, or 0.
uint32_t ApplyOptions(const Lanes& lanes, int32_t lane, uint32_t steps, const float* raw,
                      float* logits) {
  const auto none_left = [&] { return Highest(logits, lanes.vocab_size) == kBarred; };
  std::memcpy(logits, raw, static_cast<size_t>(lanes.vocab_size) * sizeof(float));
  if ((steps & kLaneBias) != 0) {
    AddBiasTo(lanes, lane, logits);
    if (none_left()) return kLaneBias;
  }
  if ((steps & kLanePenalties) != 0) Penalise(lanes, lane, logits);
  if ((steps & kLaneNgrams) != 0) {
    BarNgrams(lanes, lane, logits);
    if (none_left()) return kLaneNgrams;
  }
  if ((steps & kLaneBarred) != 0) {
    BarTokens(lanes, lane, logits);
    if (none_left()) return kLaneBarred;
  }
  return 0;
}

// ---- Temperature and the filters after it --------------------------------------------------

// logits = (logits - highest) / temperature: the highest becomes 0, a tiny temperature no overflow.
void Scale(float temperature, int32_t count, float* logits) {
  const float highest = Highest(logits, count);
  for (int32_t i = 0; i < count; ++i) {
    if (logits[i] == kBarred) continue;
    logits[i] = Clamped((logits[i] - highest) / temperature);
  }
}

// exp, for logits relative to the highest. Below -60 (10^-26) it would not show beside the
// highest's 1 in double precision: 0.
double Mass(double relative) { return relative < -60 ? 0 : std::exp(relative); }

// A set of ids in scratch, in any order.
struct Candidates {
  int32_t* ids;
  int32_t count;
};

Candidates AtLeast(const float* logits, int32_t vocab_size, double threshold, int32_t* ids) {
  Candidates found{ids, 0};
  for (int32_t i = 0; i < vocab_size; ++i) {
    if (logits[i] != kBarred && logits[i] >= threshold) ids[found.count++] = i;
  }
  return found;
}

// The best k of all ids: candidates gather until there are twice k, then the worse half goes.
Candidates BestOf(const float* logits, int32_t vocab_size, int32_t k, int32_t* ids) {
  const Better better{logits};
  const int32_t room = k > vocab_size / 2 ? vocab_size : std::min(vocab_size, 2 * k + 256);
  int32_t count = 0;
  int32_t worst = -1;  // the k-th best so far, once known
  const auto shrink = [&] {
    if (count <= k) return;
    std::nth_element(ids, ids + k - 1, ids + count, better);
    count = k;
    worst = ids[k - 1];
  };
  for (int32_t i = 0; i < vocab_size; ++i) {
    if (logits[i] == kBarred || (worst >= 0 && !better(i, worst))) continue;
    if (count == room) shrink();
    ids[count++] = i;
  }
  shrink();
  return {ids, count};
}

double MassOf(const double* masses, const int32_t* begin, const int32_t* end) {
  double mass = 0;
  for (; begin != end; ++begin) mass += masses[*begin];
  return mass;
}

// The fewest of the best candidates whose mass reaches `wanted`, at least one: the nucleus
// (Holtzman et al., 2019). Halves the range that holds its end; sorts only a last small one.
Candidates Nucleus(const float* logits, const double* masses, double wanted, Candidates from) {
  const Better better{logits};
  int32_t low = 0;
  int32_t high = from.count;
  double before = 0;
  while (high - low > 64) {
    const int32_t middle = low + (high - low) / 2;
    std::nth_element(from.ids + low, from.ids + middle, from.ids + high, better);
    const double mass = MassOf(masses, from.ids + low, from.ids + middle);
    if (before + mass >= wanted) {
      high = middle;
    } else {
      before += mass;
      low = middle;
    }
  }
  std::sort(from.ids + low, from.ids + high, better);
  int32_t count = low;
  while (count < high && (count == 0 || before < wanted)) before += masses[from.ids[count++]];
  return {from.ids, count};
}

// Ids that hold the nucleus of the whole vocabulary, few where the mass is concentrated.
Candidates NucleusOfAll(const float* logits, int32_t vocab_size, double top_p,
                        const SamplerScratch& scratch) {
  double total = 0;
  for (int32_t i = 0; i < vocab_size; ++i) {
    scratch.masses[i] = Mass(logits[i]);  // 0 of -inf
    total += scratch.masses[i];
  }
  const double wanted = top_p * total;
  Candidates likely = AtLeast(logits, vocab_size, -8.0, scratch.ids);
  if (MassOf(scratch.masses, likely.ids, likely.ids + likely.count) < wanted) {
    likely = AtLeast(logits, vocab_size, -static_cast<double>(kLargest), scratch.ids);
  }
  return Nucleus(logits, scratch.masses, wanted, likely);
}

// The nucleus of what top_k left.
Candidates NucleusOf(const float* logits, Candidates from, double top_p,
                     const SamplerScratch& scratch) {
  std::sort(from.ids, from.ids + from.count, Better{logits});
  for (int32_t i = 0; i < from.count; ++i) scratch.masses[from.ids[i]] = Mass(logits[from.ids[i]]);
  const double total = MassOf(scratch.masses, from.ids, from.ids + from.count);
  return Nucleus(logits, scratch.masses, top_p * total, from);
}

// What top_k, then top_p, then min_p leave; count < 0: none of them is asked, all ids remain.
Candidates Filter(const Lane& lane, const float* logits, int32_t vocab_size,
                  const SamplerScratch& scratch) {
  int32_t* ids = scratch.ids;
  Candidates left{ids, -1};
  if (lane.top_k > 0 && lane.top_k < vocab_size) {
    left = BestOf(logits, vocab_size, lane.top_k, ids);
  }
  if (lane.top_p < 1) {
    left = left.count < 0 ? NucleusOfAll(logits, vocab_size, lane.top_p, scratch)
                          : NucleusOf(logits, left, lane.top_p, scratch);
  }
  if (lane.min_p > 0) {
    // A probability relative to the highest is the exponential of the scaled logit. The highest
    // itself, at 0, always stays.
    const double threshold = std::min(0.0, std::log(static_cast<double>(lane.min_p)));
    if (left.count < 0) {
      left = AtLeast(logits, vocab_size, threshold, ids);
    } else {
      const int32_t* end = std::remove_if(ids, ids + left.count, [&](int32_t id) {
        return static_cast<double>(logits[id]) < threshold;
      });
      left.count = static_cast<int32_t>(end - ids);
    }
  }
  return left;
}

// ---- Draws ---------------------------------------------------------------------------------

// The Gumbel variables of one lane at one position.
class Gumbel {
  static constexpr double kLog2 = 0.6931471806;  // rounded up

 public:
  explicit Gumbel(const Lane& lane)
      : key_{static_cast<uint32_t>(lane.seed), static_cast<uint32_t>(lane.seed >> 32)},
        position_(static_cast<uint32_t>(lane.length)),
        index_(lane.index) {}

  uint32_t WordOf(int32_t id) {
    const uint32_t group = static_cast<uint32_t>(id) / 4;
    if (group != group_) {
      words_ = Philox({position_, index_, group, 0}, key_);
      group_ = group;
    }
    return words_[static_cast<uint32_t>(id) % 4];
  }

  static double Value(uint32_t word) {
    const double v = (static_cast<double>(word) + 0.5) * 0x1p-32;
    return -std::log(-std::log1p(-v));
  }

  // No less than Value, without a logarithm: -log(1 - v) >= v, and v >= 2^-(leading zeros + 1).
  static double AtMost(uint32_t word) { return (std::countl_zero(word) + 1) * kLog2; }
  // No less than any value.
  static constexpr double kAtMost = 33 * kLog2;

 private:
  std::array<uint32_t, 2> key_;
  uint32_t position_;
  uint32_t index_;
  uint32_t group_ = std::numeric_limits<uint32_t>::max();
  std::array<uint32_t, 4> words_ = {};
};

int32_t Draw(const Lane& lane, const float* logits, int32_t vocab_size, const Candidates& left) {
  Gumbel gumbel(lane);
  int32_t best = left.count > 0 ? *std::min_element(left.ids, left.ids + left.count, Better{logits})
                                : ArgMax(logits, vocab_size);
  double best_score = logits[best] + Gumbel::Value(gumbel.WordOf(best));
  const auto consider = [&](int32_t id) {
    // Most ids cannot win: by their logit alone, or with the bound of their word.
    const double logit = logits[id];
    if (!(logit + Gumbel::kAtMost >= best_score)) return;
    const uint32_t word = gumbel.WordOf(id);
    if (logit + Gumbel::AtMost(word) < best_score) return;
    const double score = logit + Gumbel::Value(word);
    if (score > best_score || (score == best_score && id < best)) {
      best = id;
      best_score = score;
    }
  };
  if (left.count > 0) {
    for (int32_t i = 0; i < left.count; ++i) consider(left.ids[i]);
  } else {
    for (int32_t i = 0; i < vocab_size; ++i) consider(i);
  }
  return best;
}

// The options that apply now.
uint32_t StepsOf(const Lane& lane) {
  const uint32_t steps = lane.flags & (kLaneBias | kLanePenalties | kLaneNgrams | kLaneBarred);
  return lane.length >= lane.min_length ? steps & ~uint32_t{kLaneBarred} : steps;
}

// Those of `steps` on a copy of `raw`; one that would leave no id is skipped.
void ApplyPossible(const Lanes& lanes, int32_t lane, uint32_t steps, const float* raw,
                   float* logits) {
  while (const uint32_t failed = ApplyOptions(lanes, lane, steps, raw, logits)) steps &= ~failed;
}

int32_t Choose(const Lanes& lanes, int32_t lane, const float* raw, const SamplerScratch& scratch) {
  const Lane& state = lanes.lane[lane];
  const int32_t vocab_size = lanes.vocab_size;
  const uint32_t steps = StepsOf(state);
  if (steps == 0 && !(state.temperature > 0)) return ArgMax(raw, vocab_size);
  float* logits = scratch.logits;
  ApplyPossible(lanes, lane, steps, raw, logits);
  if (!(state.temperature > 0)) return ArgMax(logits, vocab_size);
  Scale(state.temperature, vocab_size, logits);
  return Draw(state, logits, vocab_size, Filter(state, logits, vocab_size, scratch));
}

void Advance(const Lanes& lanes, int32_t lane, int32_t id) {
  Lane& state = lanes.lane[lane];
  if (state.length >= lanes.max_length) return;
  lanes.history[int64_t{lane} * lanes.max_length + state.length] = id;
  state.length += 1;
  if ((state.flags & (kLanePenalties | kLaneBeam)) == kLanePenalties) {
    lanes.counts[int64_t{lane} * lanes.vocab_size + id] += 1;
  }
}

// ---- Scores --------------------------------------------------------------------------------

double LogMass(const float* logits, int32_t vocab_size) {
  const double highest = Highest(logits, vocab_size);
  double total = 0;
  for (int32_t i = 0; i < vocab_size; ++i) total += Mass(logits[i] - highest);
  return highest + std::log(total);
}

// The best of the ids that are not barred, the best first: `wanted` of them or all there are.
int32_t ListBest(const float* logits, int32_t vocab_size, int32_t wanted, int32_t* ids) {
  const Better better{logits};
  int32_t count = 0;
  for (int32_t i = 0; i < vocab_size && wanted > 0; ++i) {
    if (logits[i] == kBarred || (count == wanted && !better(i, ids[count - 1]))) continue;
    int32_t at = count == wanted ? count - 1 : count++;
    for (; at > 0 && better(i, ids[at - 1]); --at) ids[at] = ids[at - 1];
    ids[at] = i;
  }
  return count;
}

int32_t ListLength(int32_t asked, int32_t least, int32_t vocab_size) {
  return std::clamp(asked, least, std::min(kMaxTopLogprobs, vocab_size));
}

// kLaneBeam. `logits` become log-probabilities.
void RankRow(const Lanes& lanes, int32_t lane, float* logits, const SamplerScratch& scratch,
             TokenScore* out) {
  const Lane& state = lanes.lane[lane];
  const int32_t vocab_size = lanes.vocab_size;
  const float log_mass = static_cast<float>(LogMass(logits, vocab_size));
  for (int32_t i = 0; i < vocab_size; ++i) logits[i] = Clamped(logits[i] - log_mass);
  ApplyPossible(lanes, lane, StepsOf(state), logits, scratch.logits);
  const int32_t wanted = ListLength(state.top_logprobs, 1, vocab_size);
  out->top_count = ListBest(scratch.logits, vocab_size, wanted, out->top_ids);
  for (int32_t i = 0; i < out->top_count; ++i) {
    out->top_logprobs[i] = scratch.logits[out->top_ids[i]];
  }
  out->token_id = out->top_ids[0];
}

}  // namespace

void ScoreRow(float* logits, int32_t vocab_size, int32_t id, int32_t top, TokenScore* out) {
  ClampLogits(logits, vocab_size);
  const double log_mass = LogMass(logits, vocab_size);
  const auto logprob = [&](int32_t i) {
    return static_cast<float>(std::max(logits[i] - log_mass, -double{kLargest}));
  };

  const Better better{logits};
  out->token_id = id;
  out->logprob = logprob(id);
  out->rank = 1;
  for (int32_t i = 0; i < vocab_size; ++i) out->rank += better(i, id) ? 1 : 0;
  out->top_count = ListBest(logits, vocab_size, ListLength(top, 0, vocab_size), out->top_ids);
  for (int32_t i = 0; i < out->top_count; ++i) out->top_logprobs[i] = logprob(out->top_ids[i]);
}

void SampleRow(const Lanes& lanes, int32_t lane, float* logits, const SamplerScratch& scratch,
               TokenScore* out) {
  const Lane& state = lanes.lane[lane];
  ClampLogits(logits, lanes.vocab_size);
  *out = TokenScore();
  if ((state.flags & kLaneBeam) != 0) {
    RankRow(lanes, lane, logits, scratch, out);
  } else {
    out->token_id = Choose(lanes, lane, logits, scratch);
    if ((state.flags & kLaneLogprobs) != 0) {
      ScoreRow(logits, lanes.vocab_size, out->token_id, state.top_logprobs, out);
    }
  }
  Advance(lanes, lane, out->token_id);
}

}  // namespace sirocco::cpu
