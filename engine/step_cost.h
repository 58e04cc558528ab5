// What a step costs in time, learned from those that have ended, and so how many prompt tokens may
// go beside a decode batch. Pure arithmetic; engine thread.
//
// A prefill is taken to need
//   start + a_token * tokens + a_pair * pairs
// seconds. Pairs are a token and a slot that it attends to: deep in a long prompt they are most of
// what a token costs. The three are the non-negative numbers that fit the prefills of late best
// (least squares of relative errors, each step weighing a little less than the next).
//
// What is bounded is not the mean alone but the slow step that a client feels: `caution` is how
// much longer than expected all but a hundredth of the steps beside a batch take. These may be
// kTail times as long as the mean may.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "engine/decode_times.h"

namespace sirocco {

// The prompts' part of a step, or what it may be.
struct PrefillWork {
  double tokens = 0;
  double pairs = 0;

  // `count` tokens, the first at this position.
  void Add(int32_t first_position, int32_t count) {
    tokens += count;
    pairs += count * (first_position + (count + 1) / 2.0);
  }
};

class StepCost;

// What a step may still take of prompts.
class PrefillBudget {
 public:
  // So many tokens, at any cost.
  explicit PrefillBudget(int32_t tokens) : tokens_(tokens) {}

  // How many tokens it may take of a prompt from this position on.
  int32_t TokensFrom(int32_t position) const;
  void Take(int32_t position, int32_t count);
  // Somebody waits for the step's end: from now on it may become a quarter longer than it is.
  void HoldUpNoMore();

  // It may take no more from this position on than it says, but for what makes the step as large
  // as the next of `sizes`, which ascend: rows that the device computes anyway.
  void FillUp(std::span<const int32_t> sizes, int32_t position);

  // That it may take at any cost.
  int32_t tokens() const { return tokens_; }

  // Seconds that the step may take by what is known, and those of what was taken, its start
  // included; 0: nothing is known.
  double allowed() const { return allowed_; }
  double taken() const { return taken_; }
  // Before anything was taken: it may take `more` seconds, of which, together with its own, `had`
  // were taken by another step.
  void Lend(double more, double had);
  bool lends() const { return lent_ > 0; }
  // Who comes now has nothing of what was lent.
  void Reclaim();

 private:
  friend class StepCost;

  int32_t tokens_;
  int32_t had_ = 0;    // tokens taken
  int32_t least_ = 0;  // tokens that it may take whatever they cost
  // A tokens_'s cost; 0: nothing.
  double a_token_ = 0, a_pair_ = 0;
  double seconds_ = 0;  // that are left; negative: none are
  double allowed_ = 0;  // seconds in all, but for what was lent
  double lent_ = 0;     // seconds
  double taken_ = 0;    // seconds of what was taken, the start included
};

class StepCost {
 public:
  // A step beside a decode batch may have so many prompt tokens, whatever they cost: prompts go on.
  static constexpr int32_t kLeast = 16;
  // By so much all but a hundredth of the steps may be beyond what is allowed.
  static constexpr double kTail = 1.1;

  // What a step was, with the device's time for each part.
  void Add(const PrefillWork& prefill, double prefill_seconds, int32_t decode_rows,
           double decode_seconds);

  // Of at most `most` prompt tokens as many as keep a step of the present decode batch within
  // `factor` steps of the batch alone, and all but a hundredth of them within kTail times that;
  // kLeast (or `most`, if that is less) at least, and no more as long as nothing is known. Where a
  // step with the least tokens is already longer, as many as make it kTail times as long as that,
  // however much such steps vary: a prefill's start is then most of its cost, and fewer tokens
  // would not make a step shorter, but more steps.
  //
  // `joined`: rows of the batch when those have come to it whose prompts are soon read; where it
  // is more than the present batch, its steps are what counts. They are what all will have then,
  // and where a few decode and hundreds are to be read, each of their own short steps would leave
  // time for a few prompts, with a start of their own: groups that come and go one after the other
  // for as long as their clients ask again.
  PrefillBudget Beside(double factor, int32_t most, int32_t joined = 0) const;

  // What a step without a decode batch may take of `most` tokens: who comes meanwhile waits for its
  // end, so it takes kLongest seconds by what is known, or kStarts times a prefill's start, where
  // that is more and smaller steps would be dear; kLeast tokens at least.
  static constexpr double kLongest = 0.1;
  static constexpr double kStarts = 10;
  PrefillBudget Alone(int32_t most) const;

  // Whether a step of these prompts is mostly its start.
  bool MostlyStart(const PrefillWork& prompts) const {
    return cost_[1] * prompts.tokens + cost_[2] * prompts.pairs < cost_[0];
  }

  double caution() const { return caution_; }
  // How much longer a decode batch takes beside prompts than alone.
  double slowdown() const { return slowdown_; }

 private:
  // In the order of `start`, `a_token`, `a_pair`.
  static constexpr int kTerms = 3;
  using Terms = std::array<double, kTerms>;
  static Terms TermsOf(const PrefillWork& work) { return {1, work.tokens, work.pairs}; }

  void LearnDecode(bool beside, int32_t rows, double seconds);
  void LearnCaution(const PrefillWork& prefill, int32_t decode_rows, double seconds);
  void Fit();
  bool Solve(const std::array<bool, kTerms>& used, Terms* out) const;

  // Of a decode batch of last_decode_.rows, beside prompts and alone; negative: none has ended.
  double decode_ = -1, alone_ = -1;
  DecodeTimes times_;
  double slowdown_ = 1;
  // The decode part of the step before, for its ratio to one of as many rows; 0 rows: none.
  struct {
    int32_t rows = 0;
    bool beside = false;
    double seconds = 0;
  } last_decode_;
  // Sums over prefills: of products of terms over their seconds, and of such terms.
  std::array<Terms, kTerms> squares_ = {};
  Terms products_ = {};
  Terms cost_ = {};     // a prefill's, by term
  double largest_ = 0;  // prefill of late, in tokens; 0: there was none
  double small_ = 0;    // seconds of a prefill of few tokens; 0: not known
  double caution_ = 1;
  int64_t cautious_steps_ = 0;  // that it was learned of
};

}  // namespace sirocco
