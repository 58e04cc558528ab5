// A beam search on the sequences that run it: a lane and a block table for each beam.
//
// A group's sequences take their lanes together, and lose them together. The first one computes the
// prompt; the others are idle until then. Each step tells of each beam its most probable next ids
// (Lane::top_logprobs, found within the step). When all beams of a step are known the search
// chooses, and beams move: a beam stays in the lane of the one that it continues, where no other
// one does; a second continuation takes the lane of a beam that ends here, with a copy of its
// parent's tokens (LaneFork) and a share of its blocks (KvCache::Fork). So what a group does next
// is known only when its step has ended, and nothing is launched ahead of it.
//
// Nothing is told of the answers before the search has ended: only then is known which they are.
// Engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/beam_search.h"
#include "engine/events.h"
#include "engine/kv_cache.h"
#include "engine/sequence.h"
#include "graphs/step.h"
#include "kernels/lanes.h"

namespace sirocco {

class BeamGroup {
 public:
  // The ids that a step tells of a beam: so many go on, whichever of them end.
  static int32_t Candidates(const RequestContext& context);

  explicit BeamGroup(std::shared_ptr<const RequestContext> context);

  // In the order of index, num_beams of them; each outlives the group's last call but Tell's.
  void Add(Sequence* member) { members_.push_back(member); }
  std::span<Sequence* const> members() const { return members_; }

  // The prompt's last step has ended, and every member has tokens of its own.
  bool forked() const { return search_.length() > 0; }

  // What was sampled for a member, with the candidates. True: that was the last of the step's, and
  // Advance may be called.
  bool Tell(const Sequence& member, const TokenScore& score);
  // Takes the next token of all beams. Unless the search is done the members then go on, once the
  // forks have been made in their order.
  void Advance(KvCache& kv, std::vector<LaneFork>* forks);
  bool done() const { return search_.done(); }
  // The answers' tokens, an answer after the other; once done.
  void Answer(Clock::time_point time, std::vector<Event>* events) const;

  // The members lose their lanes: what was told of this step will be told again.
  void Forget();

 private:
  void FillCandidates();
  void KeepScores();
  void AssignMembers();
  void Move(KvCache& kv, std::vector<LaneFork>* forks);
  // The member that holds what beam `beam` of the next step continues.
  Sequence& ParentOf(size_t beam) const;
  TokenScore ScoreOf(const BeamSearch::Node& node) const;
  // How the lane goes on with the node's token, from what `parent` knows before it.
  LaneFork ForkOf(int32_t lane, const Sequence& parent, const BeamSearch::Node& node) const;

  std::shared_ptr<const RequestContext> context_;
  BeamSearch search_;
  std::vector<Sequence*> members_;  // by index
  std::vector<Sequence*> holders_;  // by beam: who runs it
  std::vector<Sequence*> next_;     // the same of the next step, while it is made
  std::vector<TokenScore> told_;    // by beam; token_id -1: not yet
  std::vector<std::vector<BeamSearch::Candidate>> candidates_;  // by beam
  std::vector<TokenScore> scores_;  // by node, where logprobs were asked
  bool keeps_counts_;               // the lanes do, and are told of every token
};

}  // namespace sirocco
