// Stop strings in a stream of text. Text is released as soon as it can no longer be the beginning
// of a stop string, so that none ever leaks, nor part of one.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sirocco {

// One a sequence; one thread at a time. Whatever the pieces the text comes in, the result is the
// same: the match is the one that ends first; of several that end there, the longest; of equal
// ones, the first listed.
class StopMatcher {
 public:
  // `include_stop`: a match is released up to its end, else the text is cut before it. Empty
  // strings are never found.
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Result {
    std::string text;            // safe to show; whole characters where stops and pieces are UTF-8
    std::optional<size_t> stop;  // which of the stops was found
  };

  // `check` false: no match may end in this piece (one may begin in it). After a match all further
  // pieces are dropped. Time: O(piece * stops), amortised.
  Result Feed(std::string_view piece, bool check);

  // The stream has ended: what was held back, at most the longest stop string less one byte.
  std::string Finish();

 private:
  // Knuth, Morris, Pratt (1977): how much of `text` the stream's end now spells.
  struct Pattern {
    std::string text;
    std::vector<size_t> border;  // [text.size()]: longest proper prefix that ends text[0 ... i]
    size_t matched = 0;          // less than text.size() between bytes
  };
  static bool Advance(Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  const bool include_stop_;
  bool stopped_ = false;
  std::string held_;
};

}  // namespace sirocco
