#include "engine/beam_search.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace sirocco {
namespace {

// How far below the first the other beams begin, and a beam falls that goes on past its end.
constexpr float kFarBelow = -1e9f;

}  // namespace

BeamSearch::BeamSearch(const BeamOptions& options, int32_t max_new_tokens)
    : options_(options), max_new_tokens_(max_new_tokens) {
  // A step takes no memory for these.
  const auto beams = static_cast<size_t>(options.num_beams);
  beams_.reserve(beams);
  next_beams_.reserve(beams);
  answers_.reserve(beams + 1);
}

void BeamSearch::Gather(std::span<const std::vector<Candidate>> candidates) {
  continuations_.clear();
  const auto add = [&](int32_t beam, float score) {
    for (const Candidate& candidate : candidates[beam]) {
      continuations_.push_back({beam, &candidate, score + candidate.logprob});
    }
  };
  for (size_t beam = 0; beam < beams_.size(); ++beam) {
    add(static_cast<int32_t>(beam), beams_[beam].score);
  }
  for (int32_t copy = static_cast<int32_t>(beams_.size()); copy < options_.num_beams; ++copy) {
    add(0, kFarBelow);
  }
  std::stable_sort(continuations_.begin(), continuations_.end(),
                   [](const Continuation& a, const Continuation& b) { return a.score > b.score; });
}

int32_t BeamSearch::AddNode(const Continuation& continuation) {
  nodes_.push_back({.before = beams_[continuation.beam].node,
                    .beam = continuation.beam,
                    .token = continuation.what->token});
  return static_cast<int32_t>(nodes_.size()) - 1;
}

double BeamSearch::Penalised(float score) const {
  return score / std::pow(static_cast<double>(length_), double{options_.length_penalty});
}

void BeamSearch::Finish(const Continuation& continuation) {
  const auto most = static_cast<size_t>(options_.num_beams);
  const double score = Penalised(continuation.score);
  if (answers_.size() == most && !(score > answers_.back().score)) return;
  const auto at = std::find_if(answers_.begin(), answers_.end(),
                               [&](const Answer& answer) { return score > answer.score; });
  answers_.insert(at, {.node = AddNode(continuation), .length = length_, .score = score});
  if (answers_.size() > most) answers_.pop_back();
}

void BeamSearch::Advance(std::span<const std::vector<Candidate>> candidates) {
  Gather(candidates);
  ++length_;
  const bool last = length_ == max_new_tokens_;
  const auto wanted = static_cast<size_t>(options_.num_beams);
  for (size_t i = 0; i < std::min(wanted, continuations_.size()); ++i) {
    if (last || continuations_[i].what->ends) Finish(continuations_[i]);
  }
  done_ = last;
  if (done_) return;

  next_beams_.clear();
  const auto go_on = [&](bool ended, float penalty) {
    for (const Continuation& continuation : continuations_) {
      if (next_beams_.size() == wanted) return;
      if (continuation.what->ends != ended) continue;
      next_beams_.push_back({AddNode(continuation), continuation.score + penalty});
    }
  };
  go_on(/*ended=*/false, 0);
  go_on(/*ended=*/true, kFarBelow);
  beams_.swap(next_beams_);
  if (answers_.size() < wanted) return;
  done_ = options_.early_stopping || !(Penalised(beams_.front().score) > answers_.back().score);
}

std::vector<int32_t> BeamSearch::NodesOf(const Answer& answer) const {
  std::vector<int32_t> nodes(answer.length);
  int32_t node = answer.node;
  for (auto at = nodes.rbegin(); at != nodes.rend(); ++at) {
    *at = node;
    node = nodes_[node].before;
  }
  return nodes;
}

}  // namespace sirocco
