#include "engine/beam_group.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace sirocco {
namespace {

constexpr int32_t kNotTold = -1;

bool Ends(TokenRole role) { return role == TokenRole::kEndToken || role == TokenRole::kStopToken; }

}  // namespace

int32_t BeamGroup::Candidates(const RequestContext& context) {
  const int32_t beams = context.request.beam->num_beams;
  const auto ends = static_cast<int32_t>(context.barred_ids.size());
  return beams + std::max(beams, ends);
}

BeamGroup::BeamGroup(std::shared_ptr<const RequestContext> context)
    : context_(std::move(context)),
      search_(*context_->request.beam, context_->request.max_new_tokens),
      keeps_counts_(context_->request.sampling.HasPenalties()) {
  const auto beams = static_cast<size_t>(context_->request.beam->num_beams);
  members_.reserve(beams);
  holders_.reserve(beams);
  next_.reserve(beams);
  told_.resize(beams);
  candidates_.resize(beams);
  for (std::vector<BeamSearch::Candidate>& of_beam : candidates_) of_beam.reserve(kMaxTopLogprobs);
  Forget();
}

void BeamGroup::Forget() {
  for (TokenScore& score : told_) score.token_id = kNotTold;
}

bool BeamGroup::Tell(const Sequence& member, const TokenScore& score) {
  if (holders_.empty()) holders_.push_back(members_.front());
  const auto holder = std::find(holders_.begin(), holders_.end(), &member);
  told_[holder - holders_.begin()] = score;
  return std::none_of(told_.begin(), told_.begin() + holders_.size(),
                      [](const TokenScore& told) { return told.token_id == kNotTold; });
}

void BeamGroup::FillCandidates() {
  const int32_t count = search_.length() + 1;
  const std::vector<int32_t>& barred = context_->barred_ids;
  const bool bars = count <= context_->request.sampling.min_new_tokens;
  for (size_t beam = 0; beam < holders_.size(); ++beam) {
    const TokenScore& told = told_[beam];
    std::vector<BeamSearch::Candidate>& of_beam = candidates_[beam];
    of_beam.clear();
    const auto add = [&](bool all) {
      for (int32_t i = 0; i < told.top_count; ++i) {
        const int32_t token = told.top_ids[i];
        if (!all && std::binary_search(barred.begin(), barred.end(), token)) continue;
        of_beam.push_back({token, told.top_logprobs[i], Ends(context_->RoleOf(token, count))});
      }
    };
    add(!bars);
    if (of_beam.empty()) add(/*all=*/true);  // where nothing else is left
  }
}

TokenScore BeamGroup::ScoreOf(const BeamSearch::Node& node) const {
  TokenScore score = told_[node.beam];
  const std::span<const int32_t> ids(score.top_ids);
  const auto place =
      static_cast<int32_t>(std::find(ids.begin(), ids.end(), node.token) - ids.begin());
  score.token_id = node.token;
  score.logprob = score.top_logprobs[place];
  score.rank = place + 1;
  score.top_count = std::min(score.top_count, context_->request.logprobs->top);
  return score;
}

void BeamGroup::KeepScores() {
  if (!context_->request.logprobs) return;
  const std::vector<BeamSearch::Node>& nodes = search_.nodes();
  while (scores_.size() < nodes.size()) scores_.push_back(ScoreOf(nodes[scores_.size()]));
}

void BeamGroup::Advance(KvCache& kv, std::vector<LaneFork>* forks) {
  FillCandidates();
  search_.Advance(std::span(candidates_).first(holders_.size()));
  KeepScores();
  if (!search_.done()) {
    AssignMembers();
    Move(kv, forks);
  }
  Forget();
}

Sequence& BeamGroup::ParentOf(size_t beam) const {
  return *holders_[search_.nodes()[search_.beams()[beam].node].beam];
}

void BeamGroup::AssignMembers() {
  const std::vector<BeamSearch::Beam>& beams = search_.beams();
  next_.assign(beams.size(), nullptr);
  const auto taken = [&](const Sequence* member) {
    return std::find(next_.begin(), next_.end(), member) != next_.end();
  };
  // A beam stays where its parent is: of several the one whose token was sampled there.
  for (const bool sampled : {true, false}) {
    for (size_t i = 0; i < beams.size(); ++i) {
      const BeamSearch::Node& node = search_.nodes()[beams[i].node];
      if (next_[i] != nullptr || taken(&ParentOf(i))) continue;
      if (!sampled || node.token == told_[node.beam].token_id) next_[i] = &ParentOf(i);
    }
  }
  size_t free = 0;
  for (Sequence*& member : next_) {
    if (member != nullptr) continue;
    while (taken(members_[free])) ++free;
    member = members_[free];
  }
}

LaneFork BeamGroup::ForkOf(int32_t lane, const Sequence& parent,
                           const BeamSearch::Node& node) const {
  LaneFork fork = {.lane = lane, .parent = parent.lane(), .token = node.token};
  if (keeps_counts_) {
    const std::span<const int32_t> output = parent.tokens().subspan(context_->prompt_length());
    fork.count = 1 + static_cast<int32_t>(std::count(output.begin(), output.end(), node.token));
  }
  return fork;
}

void BeamGroup::Move(KvCache& kv, std::vector<LaneFork>* forks) {
  const std::vector<BeamSearch::Beam>& beams = search_.beams();
  const auto node_of = [&](size_t i) { return search_.nodes()[beams[i].node]; };
  // Those that move go first, as long as their parents are what they were.
  for (size_t i = 0; i < beams.size(); ++i) {
    Sequence& parent = ParentOf(i);
    if (next_[i] == &parent) continue;
    kv.Fork(parent.blocks(), next_[i]->blocks());
    next_[i]->GoOnFrom(parent);
    forks->push_back(ForkOf(next_[i]->lane(), parent, node_of(i)));
  }
  for (size_t i = 0; i < beams.size(); ++i) {
    if (next_[i] != &ParentOf(i)) continue;
    next_[i]->GoOnFrom(*next_[i]);
    const BeamSearch::Node& node = node_of(i);
    if (node.token == told_[node.beam].token_id && !keeps_counts_) continue;
    forks->push_back(ForkOf(next_[i]->lane(), *next_[i], node));
  }
  for (size_t i = 0; i < beams.size(); ++i) next_[i]->GoOnWith(node_of(i).token);
  holders_.swap(next_);
}

void BeamGroup::Answer(Clock::time_point time, std::vector<Event>* events) const {
  for (int32_t index = 0; index < context_->request.n; ++index) {
    int32_t count = 0;
    for (const int32_t node : search_.NodesOf(search_.answers()[index])) {
      TokenScore score = {};
      score.token_id = search_.nodes()[node].token;
      if (!scores_.empty()) score = scores_[node];
      events->push_back(
          {context_->number, TokenEvent{.index = index,
                                        .role = context_->RoleOf(score.token_id, ++count),
                                        .time = time,
                                        .score = score}});
    }
  }
}

}  // namespace sirocco
