// Cutting text into the words that merges do not cross: a chain of steps, each of which cuts the
// pieces that the one before it made, as Hugging Face's pre-tokenizers do.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/regex.h"

namespace sirocco {

// What becomes of the matches of a step's pattern.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStep {
  Regex pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what does not match counts as the match, and the other way round
};

// GPT-2's split, which ByteLevel with use_regex means; in Oniguruma's syntax.
extern const char kGpt2Pattern[];

// Spaces become a mark, which also stands in front of a text, and words begin at it.
struct MetaspaceStep {
  enum class Prefix { kNever, kFirst, kAlways };  // kFirst: where the whole text begins
  std::string mark;                               // one character
  Prefix prefix = Prefix::kAlways;                // where a piece does not begin with one anyway
  std::optional<Regex> split;                     // the mark; none: words are the pieces
};

using PreTokenizerStep = std::variant<SplitStep, MetaspaceStep>;

// Immutable; any thread.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  // Of MetaspaceSteps there may be one. `byte_level_split`: the step of ByteLevel itself, which is
  // always the last one. With `add_prefix_space` each piece that comes to it gets a space in front
  // where it has none.
  PreTokenizer(std::vector<PreTokenizerStep> steps, bool add_prefix_space,
               std::optional<SplitStep> byte_level_split);

  // The words of one text. Views into the text, or into `storage`.
  struct Words {
    std::vector<std::string_view> words;
    std::deque<std::string> storage;
  };
  // `is_first`: the whole text begins with this one. RESOURCE_EXHAUSTED: the text makes a pattern
  // backtrack too much.
  absl::Status Split(std::string_view text, bool is_first, Words* words) const;

 private:
  std::vector<PreTokenizerStep> steps_;
  bool add_prefix_space_ = false;
  std::optional<SplitStep> byte_level_split_;
};

}  // namespace sirocco
