#include "engine/step_cost.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace sirocco {
namespace {

constexpr double kDecay = 0.98;  // a prefill counts for about 50 steps

// Of the newest step in the time of a decode batch.
constexpr double kDecodeShare = 0.25;
// The same of a step beside prompts that took longer than the batch alone is thought to take, even
// for one that prompts slow down: others may hold it up. A batch that grows while there is always a
// prompt is believed within some tens of steps.
constexpr double kLongerShare = 0.05;

// Of the newest pair of decode steps of as many rows, one after the other, one beside prompts and
// one alone, in how much longer the former take: beside prompts a batch's weights and KV come from
// further away.
constexpr double kSlowdownShare = 0.1;
constexpr double kMostSlowdown = 2;

// How far beyond the largest prefill of late the fit is believed.
constexpr double kReach = 4;

// A term's own variation over the prefills, relative to its square, below which it would be made
// of noise: then it tends to 0. Tokens explain what is left.
constexpr double kRidge[] = {1.0 / 400, 0, 1.0 / 1600};

// A prefill of so many tokens is a small one. What such ones took is forgotten by so much a step,
// and so measured again: what larger ones suggest of it need not be so.
constexpr double kSmallTokens = 1.125 * StepCost::kLeast;
constexpr double kForgetSmall = 0.985;

// A step slower than caution allows for raises it by this (by less where it was hardly slower), any
// other lowers it by so much less that one slow step in 100 holds it where it is.
constexpr double kCautionStep = 0.04;
constexpr double kHardlySlower = 0.01;
constexpr double kSlowShare = 0.01;
constexpr double kMostCaution = 1.4;
// Of the first steps so many may be slower: the fit knows little then, and what it did not know is
// not how much steps vary.
constexpr double kFirstSlow = 3;

}  // namespace

int32_t PrefillBudget::TokensFrom(int32_t position) const {
  // n (one + pair / 2 n) = seconds, solved so that a cost of 0 divides nothing.
  const double one = a_token_ + a_pair_ * (position + 0.5);
  const double seconds = std::max(0.0, seconds_);
  const double divisor = one + std::sqrt(one * one + 2 * a_pair_ * seconds);
  double tokens = tokens_;
  if (2 * seconds < tokens * divisor) tokens = 2 * seconds / divisor;
  return std::max(std::min(least_, tokens_), static_cast<int32_t>(tokens));
}

void PrefillBudget::FillUp(std::span<const int32_t> sizes, int32_t position) {
  const int32_t rows = had_ + TokensFrom(position);
  const auto size = std::lower_bound(sizes.begin(), sizes.end(), rows);
  if (rows == 0 || size == sizes.end()) return;
  tokens_ = std::min(tokens_, *size - had_);
  least_ = tokens_;
}

void PrefillBudget::Take(int32_t position, int32_t count) {
  PrefillWork work;
  work.Add(position, count);
  const double cost = a_token_ * work.tokens + a_pair_ * work.pairs;
  seconds_ -= cost;
  taken_ += cost;
  tokens_ -= count;
  had_ += count;
  least_ = std::max(0, least_ - count);
}

void PrefillBudget::HoldUpNoMore() {
  if (taken_ == 0) return;  // nothing is known
  seconds_ = std::min(seconds_, taken_ / 4);
  least_ = 0;
}

void PrefillBudget::Lend(double more, double had) {
  if (allowed_ == 0) return;
  lent_ = more;
  seconds_ += more - had;
  if (had > 0) least_ = 0;  // prompts have gone on
}

void PrefillBudget::Reclaim() { seconds_ -= std::exchange(lent_, 0); }

void StepCost::Add(const PrefillWork& prefill, double prefill_seconds, int32_t decode_rows,
                   double decode_seconds) {
  if (decode_rows > 0 && prefill.tokens > 0) {
    LearnCaution(prefill, decode_rows, prefill_seconds + decode_seconds);
  }
  if (decode_rows > 0) LearnDecode(prefill.tokens > 0, decode_rows, decode_seconds);
  if (prefill.tokens == 0) return;
  largest_ = std::max(prefill.tokens, largest_ * kDecay);
  small_ = prefill.tokens <= kSmallTokens ? prefill_seconds
                                          : std::min(small_ * kForgetSmall, prefill_seconds);
  if (prefill_seconds <= 0) return;  // below what the device's clock tells
  Terms terms = TermsOf(prefill);
  for (double& term : terms) term /= prefill_seconds;
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) {
      squares_[i][j] = squares_[i][j] * kDecay + terms[i] * terms[j];
    }
    products_[i] = products_[i] * kDecay + terms[i];
  }
  Fit();
}

void StepCost::LearnDecode(bool beside, int32_t rows, double seconds) {
  if (last_decode_.rows == rows && last_decode_.beside != beside) {
    const double held_up = beside ? seconds : last_decode_.seconds;
    const double free = beside ? last_decode_.seconds : seconds;
    if (free > 0) {
      const double ratio = std::clamp(held_up / free, 1 / kMostSlowdown, kMostSlowdown);
      slowdown_ += kSlowdownShare * (ratio - slowdown_);
    }
  }
  // What is known goes along with a batch that grows or shrinks.
  const double ratio = times_.Ratio(last_decode_.rows, rows);
  decode_ *= ratio;
  alone_ *= ratio;
  last_decode_ = {rows, beside, seconds};
  const double slowdown = std::max(1.0, slowdown_);
  const double alone = beside ? seconds / slowdown : seconds;
  const double held_up = beside ? seconds : seconds * slowdown;
  if (decode_ < 0) {
    decode_ = held_up;
    alone_ = alone;
  }
  decode_ += kDecodeShare * (held_up - decode_);
  alone_ += (beside && alone > alone_ ? kLongerShare : kDecodeShare) * (alone - alone_);
  times_.Add(rows, alone, /*clear=*/!beside);
}

void StepCost::LearnCaution(const PrefillWork& prefill, int32_t decode_rows, double seconds) {
  // Of steps that are far from any bound it would only tell how the fit errs where it matters not.
  if (decode_ <= 0 || largest_ == 0 || prefill.tokens < kLeast) return;
  const Terms terms = TermsOf(prefill);
  double expected = decode_ * times_.Ratio(last_decode_.rows, decode_rows);
  for (int i = 0; i < kTerms; ++i) expected += cost_[i] * terms[i];
  const double beyond = seconds / expected - caution_;
  ++cautious_steps_;
  const double share = std::max(kSlowShare, kFirstSlow / (cautious_steps_ + kFirstSlow));
  caution_ +=
      kCautionStep * (beyond > 0 ? std::min(1.0, beyond / kHardlySlower) : -share / (1 - share));
  caution_ = std::clamp(caution_, 1.0, kMostCaution);
}

// Gauss's elimination; the matrix is positive definite but for terms that explain the same.
bool StepCost::Solve(const std::array<bool, kTerms>& used, Terms* out) const {
  double rows[kTerms][kTerms + 1];
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) rows[i][j] = used[i] && used[j] ? squares_[i][j] : 0;
    rows[i][i] = used[i] ? squares_[i][i] * (1 + kRidge[i]) : 1;
    rows[i][kTerms] = used[i] ? products_[i] : 0;
  }
  for (int i = 0; i < kTerms; ++i) {
    if (used[i] && rows[i][i] <= 1e-9 * squares_[i][i]) return false;
    for (int k = i + 1; k < kTerms; ++k) {
      const double factor = rows[k][i] / rows[i][i];
      for (int j = i; j <= kTerms; ++j) rows[k][j] -= factor * rows[i][j];
    }
  }
  for (int i = kTerms; i-- > 0;) {
    (*out)[i] = rows[i][kTerms];
    for (int j = i + 1; j < kTerms; ++j) (*out)[i] -= rows[i][j] * (*out)[j];
    (*out)[i] /= rows[i][i];
  }
  return true;
}

void StepCost::Fit() {
  // Of the fits with and without `start` and `a_pair` that have nothing negative, the best.
  static constexpr std::array<bool, kTerms> kUsed[] = {
      {false, true, false}, {true, true, false}, {false, true, true}, {true, true, true}};
  double best = -1;
  for (const auto& used : kUsed) {
    Terms cost;
    if (!Solve(used, &cost) || *std::min_element(cost.begin(), cost.end()) < 0) continue;
    // By so much its squared error is less than that of a cost of 0.
    const double explained = std::inner_product(cost.begin(), cost.end(), products_.begin(), 0.0);
    if (explained <= best) continue;
    best = explained;
    cost_ = cost;
  }
}

PrefillBudget StepCost::Beside(double factor, int32_t most, int32_t joined) const {
  PrefillBudget budget(std::min(kLeast, most));
  budget.least_ = budget.tokens_;
  if (decode_ < 0 || largest_ == 0) return budget;
  const double believed = std::max<double>(kLeast, kReach * largest_);
  const double growth = std::max(1.0, times_.Ratio(last_decode_.rows, joined));
  const double decode = decode_ * growth;
  const double bound = factor * alone_ * growth * std::min(1.0, kTail / caution_);
  const double least = decode + small_;
  budget.seconds_ = small_ > 0 && least > bound
                        ? (kTail - 1) * least + kLeast * cost_[1]  // on top of the start
                        : bound - decode - cost_[0];
  if (budget.seconds_ <= 0) return budget;
  budget.tokens_ = static_cast<int32_t>(std::min<double>(most, believed));
  budget.a_token_ = cost_[1];
  budget.a_pair_ = cost_[2];
  budget.taken_ = cost_[0];
  budget.allowed_ = budget.seconds_ + cost_[0];
  return budget;
}

PrefillBudget StepCost::Alone(int32_t most) const {
  PrefillBudget budget(most);
  if (largest_ == 0) return budget;
  budget.least_ = std::min(kLeast, most);
  budget.seconds_ = std::max(kLongest, kStarts * cost_[0]) - cost_[0];
  budget.a_token_ = cost_[1];
  budget.a_pair_ = cost_[2];
  budget.taken_ = cost_[0];
  return budget;
}

}  // namespace sirocco
