// How long steps take, from those that have ended: how many prompt tokens may go beside a decode
// batch, and how fast prompts are computed. Pure arithmetic; engine thread.
#pragma once

#include <cstdint>
#include <optional>

namespace sirocco {

class StepRates {
 public:
  // What a step gave: prompt tokens computed and decode rows, with the device's time for each part.
  void Add(int32_t prefill_tokens, double prefill_seconds, int32_t decode_rows,
           double decode_seconds);

  // The most prompt tokens, kLeast ... `most`, with which a step of the present decode batch is
  // predicted to take no longer than `factor` steps of the batch alone. kLeast (or `most`, if that
  // is less) as long as nothing is known.
  int32_t TokensBeside(double factor, int32_t most) const;

  static constexpr int32_t kLeast = 16;

  // A step that had as many prompt tokens as it may, `beside` a decode batch or alone, took so long
  // in all.
  void AddFull(bool beside, int32_t prefill_tokens, double seconds);
  // A step's seconds a prompt token where there are always more than it may have. None: no step has
  // told. `beside`: a decode batch; where only steps without one have told, at least so much.
  std::optional<double> SecondsAPromptToken(bool beside) const;
  // For one who acts on the rate so that no step will correct it: it is a little less from now on.
  void Doubt();

 private:
  struct Rate {
    double tokens = 0, seconds = 0;
  };
  // The recent prefills, each weighing kDecay of the next: sums for the line seconds = a + b tokens
  // that fits them best. Where they are all of one size, the line goes through the origin.
  struct Line {
    double start = 0, slope = 0;
  };
  Line Fit() const;

  double decode_seconds_ = -1;  // of a decode batch; negative: none has ended
  double count_ = 0, tokens_ = 0, seconds_ = 0, tokens_tokens_ = 0, tokens_seconds_ = 0;
  double largest_ = 0;  // prefill of late
  Rate full_alone_, full_beside_;
};

}  // namespace sirocco
