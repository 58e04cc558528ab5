// Whose turn it is where there is something for both: the prompts', or the batch's that decodes.
// Pure arithmetic; engine thread.
//
// A round is what lies between the ends of two of the batch's steps: prompts may take an allowance
// in it (PrefillBudget::allowed), by which itl_factor bounds the round. To read a short prompt in
// as small parts as that makes is dear for who waits: a part has its own start, and a step of the
// batch behind it. So a prompt of a client that was given less than all who decode (the batcher
// says who that is) goes before its turn, and its rounds may have kBurst allowances, and a step's
// start more where a prompt is read to its end by that. What a round
// had beyond one is a debt: as long as there is one, the other prompts have no turn, and a round
// without any pays an allowance. So the mean over a dozen rounds is as itl_factor says, and of a
// client's own prompts each round.
//
// Where a step's start is most of its cost, prompts that come one after the other are gathered:
// after a round with prompts there is one without, unless there are many tokens to be read.
#pragma once

#include <algorithm>

namespace sirocco {

class PromptTurns {
 public:
  static constexpr double kBurst = 2;
  static constexpr double kMostDebt = 8;  // allowances

  // Whether it is the turn of prompts that have no advantage; `few`: they are worth a start only
  // together with others.
  bool MayHave(bool few) const {
    return !prompts_were_last_ && debt_ == 0 && !(few && had_prompts_);
  }
  bool prompts_were_last() const { return prompts_were_last_; }

  // Seconds that prompts had in this round.
  double had() const { return round_; }
  // Seconds beyond this allowance that a prompt with the advantage may have in this round.
  double Loan(double allowance) const {
    return std::clamp(kMostDebt * allowance - (debt_ - owed_), 0.0, (kBurst - 1) * allowance);
  }

  // What was planned. Prompts without a batch: nobody's time.
  void PromptsAlone() {
    prompts_were_last_ = true;
    round_ = owed_ = debt_ = 0;
  }
  // A step of prompts of so many seconds.
  void Prompts(double seconds) {
    prompts_were_last_ = true;
    round_ += seconds;
  }
  // The same, with what was lent beyond this allowance.
  void PromptsOnLoan(double seconds, double allowance) {
    Prompts(seconds);
    debt_ -= owed_;
    owed_ = std::max(0.0, round_ - allowance);
    debt_ += owed_;
  }
  // A step of the batch, when prompts might have had this allowance; 0: nothing is known.
  void Batch(double allowance) {
    had_prompts_ = prompts_were_last_;
    prompts_were_last_ = false;
    const double unused = std::max(0.0, allowance - round_);
    debt_ = std::clamp(debt_ - unused, 0.0, kMostDebt * allowance);
    round_ = owed_ = 0;
  }
  void Nothing() { prompts_were_last_ = false; }

 private:
  bool prompts_were_last_ = false;  // planned
  bool had_prompts_ = false;        // the round before this one
  // Seconds: of prompts in this round; what it had beyond an allowance; that and what others had.
  double round_ = 0, owed_ = 0, debt_ = 0;
};

}  // namespace sirocco
