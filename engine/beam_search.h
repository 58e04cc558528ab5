// Beam search as pure bookkeeping: candidates in, beams and answers out. It knows neither lanes nor
// blocks (engine/beam_group.h joins it to them).
//
// The semantics are those of Hugging Face's generate(num_beams) without sampling (transformers 5,
// generation/utils.py, _beam_search):
// - A beam's score is the sum of its tokens' logprobs, in float32.
// - Of all continuations of all beams the best num_beams may finish: those of them that end in an
//   end token, or reach max_new_tokens, become answers, with score / length ^ length_penalty. The
//   best num_beams answers are kept.
// - The best num_beams continuations that do not end go on.
// - The search ends when there are num_beams answers and, with early_stopping, at once; without it
//   when the best beam, at the length it has, does not score above the worst answer (for a positive
//   length penalty a heuristic, as there); and at max_new_tokens.
// - Only the prompt's first continuations are of one beam; the others begin far below it, so that
//   they matter only where it has too few.
// Of equal scores the lower beam, then the candidate that was told first.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"

namespace sirocco {

class BeamSearch {
 public:
  BeamSearch(const BeamOptions& options, int32_t max_new_tokens);

  // A continuation of a beam by one token.
  struct Candidate {
    int32_t token = 0;
    float logprob = 0;
    bool ends = false;  // by its token
  };
  // Takes the next token's candidates of each beam, best first, in the order of beams(); of the
  // first token those after the prompt. Each beam has one at least; the choice is right where it
  // has num_beams that do not end, or all there are. Not after done().
  void Advance(std::span<const std::vector<Candidate>> candidates);

  bool done() const { return done_; }
  int32_t length() const { return length_; }  // tokens of each beam

  // A token of the tree of all that were taken. Nodes are only ever added.
  struct Node {
    int32_t before = -1;  // the node of the token before; -1: the prompt
    int32_t beam = 0;     // of beams() before its step, which it continues
    int32_t token = 0;
  };
  const std::vector<Node>& nodes() const { return nodes_; }

  struct Beam {
    int32_t node = -1;
    float score = 0;
  };
  // That go on, the best first: num_beams of them, or before the first step one.
  const std::vector<Beam>& beams() const { return beams_; }

  struct Answer {
    int32_t node = -1;  // of its last token
    int32_t length = 0;
    double score = 0;
  };
  // The best first; once done(), num_beams of them.
  const std::vector<Answer>& answers() const { return answers_; }
  // Their nodes, from the first token on.
  std::vector<int32_t> NodesOf(const Answer& answer) const;

 private:
  struct Continuation {
    int32_t beam;
    const Candidate* what;
    float score;
  };

  void Gather(std::span<const std::vector<Candidate>> candidates);
  int32_t AddNode(const Continuation& continuation);
  void Finish(const Continuation& continuation);
  double Penalised(float score) const;  // at the length that beams have now

  const BeamOptions options_;
  const int32_t max_new_tokens_;
  int32_t length_ = 0;
  bool done_ = false;
  std::vector<Node> nodes_;
  std::vector<Beam> beams_ = {Beam()};
  std::vector<Beam> next_beams_;
  std::vector<Answer> answers_;
  std::vector<Continuation> continuations_;  // of this step, the best first
};

}  // namespace sirocco
