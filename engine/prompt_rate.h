// How fast prompts are computed where there are more than a step may take, by the steps that have
// ended: for deadlines. Pure arithmetic; engine thread.
#pragma once

#include <cstdint>
#include <optional>

namespace sirocco {

class PromptRate {
 public:
  // A step that had as many prompt tokens as it may, `beside` a decode batch or alone, took so long
  // in all.
  void Add(bool beside, int32_t prefill_tokens, double seconds);
  // None: no step has told. `beside`: a decode batch; where only steps without one have told, at
  // least so much.
  std::optional<double> SecondsAToken(bool beside) const;
  // For one who acts on the rate so that no step will correct it: it is a little less from now on.
  void Doubt();

 private:
  // Of the steps of late, each weighing kDecay of the next.
  struct Sums {
    double tokens = 0, seconds = 0;
  };
  static constexpr double kDecay = 0.9;

  Sums alone_, beside_;
};

}  // namespace sirocco
