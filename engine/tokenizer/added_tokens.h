// Tokens that are found in the text itself, before it is split into words: control tokens and
// others that were added to a vocabulary. The rules are Hugging Face's (AddedToken and
// AddedVocabulary of the tokenizers library).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sirocco {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      // a control token
  bool single_word = false;  // not next to a word character
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // is looked for in normalised text
};

// Where special tokens are found.
enum class SpecialTokens {
  kAsText,  // nowhere
  kEverywhere,
  kWhereTrusted,  // where all their bytes are trusted
};

// Immutable; any thread.
class AddedTokenMatcher {
 public:
  // The longest content that a token may have, in bytes.
  static constexpr size_t kMaxContent = 512;

  // A token and the text it is looked for as.
  explicit AddedTokenMatcher(const std::vector<std::pair<AddedToken, std::string>>& tokens);

  bool empty() const { return tokens_.empty(); }

  struct Piece {
    int32_t id;  // -1: text
    size_t begin;
    size_t end;
  };

  // Cuts valid UTF-8 at the tokens in it: the leftmost first, the longest of those that begin
  // there. `trusted` is used with kWhereTrusted alone, and is of the text's size.
  std::vector<Piece> Split(std::string_view text, SpecialTokens special,
                           const std::vector<bool>& trusted) const;

 private:
  struct Node {
    int32_t token = -1;  // index of the token that ends here
    int32_t child = -1;  // the first; -1: none
    int32_t sibling = -1;
    char byte = 0;
  };
  struct Match {
    int32_t token = -1;
    size_t end = 0;
  };
  int32_t Child(int32_t node, char byte) const;
  Match MatchAt(std::string_view text, size_t begin, SpecialTokens special,
                const std::vector<bool>& trusted) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;              // a trie; the root is the first
  std::array<int32_t, 256> root_child_;  // -1: none
};

}  // namespace sirocco
