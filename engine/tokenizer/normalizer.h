// What happens to text before it is split: a chain of steps, as Hugging Face's normalisers make
// them.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/charsmap.h"
#include "engine/tokenizer/piece_trie.h"
#include "engine/tokenizer/regex.h"

namespace sirocco {

struct NormalizerStep {
  enum class Kind {
    kNfc,  // Unicode's normal forms (UAX #15), of version 9.0 as Hugging Face's tables are
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStripAccents,  // takes marks away
    kStrip,         // takes white space off the ends
    kPrepend,       // puts `text` in front of text that is not empty
    kReplace,       // puts `text` in place of what `pattern` matches
    kNmt,           // takes control characters away; line ends and the like become spaces
    kPrecompiled,   // `charsmap` as Hugging Face applies it
    kCharsmap,      // `charsmap` as SentencePiece applies it
  };
  Kind kind = Kind::kNfc;
  std::string text = {};
  std::optional<Regex> pattern = std::nullopt;
  bool left = false;  // kStrip: the ends that it is for
  bool right = false;
  std::shared_ptr<const Charsmap> charsmap = nullptr;
  std::shared_ptr<const PieceTrie> kept = nullptr;  // kCharsmap: texts that it leaves alone
};

// Immutable; any thread.
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  // False: Apply would change no text at all.
  bool changes_text() const { return !steps_.empty(); }

  // Text is valid UTF-8; O(n log n) whatever it is. RESOURCE_EXHAUSTED: a pattern takes too long,
  // or the result becomes many times as long.
  absl::StatusOr<std::string> Apply(std::string_view text) const;

  // The same for text whose bytes are `trusted` or not: a byte of the result is trusted where all
  // characters that it may have been made of were; what is put in front, where the first one was.
  absl::StatusOr<std::string> Apply(std::string_view text, const std::vector<bool>& trusted,
                                    std::vector<bool>* result_trusted) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace sirocco
