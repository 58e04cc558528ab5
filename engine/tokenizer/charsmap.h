// The rules by which SentencePiece rewrites text: texts and what stands in their place, in one run
// of bytes, as tokenizer.model (precompiled_charsmap) and Hugging Face's Precompiled have them:
// four bytes with the size of a double array trie, the trie in units of four bytes, and texts that
// end with NUL. https://github.com/google/sentencepiece/blob/master/src/normalizer.h The trie's
// units: https://github.com/s-yata/darts-clone, include/darts.h
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sirocco {

// Immutable; any thread.
class Charsmap {
 public:
  // The largest in use have 400 KB.
  static constexpr size_t kMaxBytes = 3 << 20;
  // Bytes that may stand in place of one text; of Unicode's own the longest has 33.
  static constexpr size_t kMaxWritten = 64;

  // INVALID_ARGUMENT: no trie, or texts that are not UTF-8 or too long.
  static absl::StatusOr<std::shared_ptr<const Charsmap>> Parse(std::string_view bytes);

  struct Rule {
    size_t length;  // of the text that it is for
    std::string_view written;
  };
  // The rules for the shortest and for the longest beginning of a text. Units or texts outside the
  // map are no rule.
  std::optional<Rule> Shortest(std::string_view text) const { return Find(text, true); }
  std::optional<Rule> Longest(std::string_view text) const { return Find(text, false); }

 private:
  Charsmap() = default;
  std::optional<Rule> Find(std::string_view text, bool shortest) const;
  std::optional<std::string_view> Written(uint32_t at) const;

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace sirocco
