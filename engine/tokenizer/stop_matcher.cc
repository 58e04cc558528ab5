#include "engine/tokenizer/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace sirocco {
namespace {

std::vector<size_t> Borders(std::string_view text) {
  std::vector<size_t> border(text.size(), 0);
  for (size_t i = 1; i < text.size(); ++i) {
    size_t length = border[i - 1];
    while (length > 0 && text[i] != text[length]) length = border[length - 1];
    border[i] = text[i] == text[length] ? length + 1 : 0;
  }
  return border;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : include_stop_(include_stop) {
  patterns_.reserve(stops.size());
  for (std::string& stop : stops) {
    std::vector<size_t> border = Borders(stop);
    patterns_.push_back({std::move(stop), std::move(border)});
  }
}

// True where the stop string is whole with this byte.
bool StopMatcher::Advance(Pattern& pattern, char byte) {
  if (pattern.text.empty()) return false;
  size_t& matched = pattern.matched;
  while (matched > 0 && pattern.text[matched] != byte) matched = pattern.border[matched - 1];
  if (pattern.text[matched] == byte) ++matched;
  if (matched < pattern.text.size()) return false;
  matched = pattern.border[matched - 1];
  return true;
}

StopMatcher::Result StopMatcher::Feed(std::string_view piece, bool check) {
  Result result;
  if (stopped_) return result;
  const size_t old_size = held_.size();
  held_.append(piece);
  for (size_t i = old_size; i < held_.size(); ++i) {
    for (size_t k = 0; k < patterns_.size(); ++k) {
      if (!Advance(patterns_[k], held_[i]) || !check) continue;
      if (!result.stop || patterns_[k].text.size() > patterns_[*result.stop].text.size()) {
        result.stop = k;
      }
    }
    if (!result.stop) continue;
    // All of the match is still here: what precedes the piece was held back for it.
    const size_t end = i + 1;
    result.text = held_.substr(0, include_stop_ ? end : end - patterns_[*result.stop].text.size());
    stopped_ = true;
    held_.clear();
    return result;
  }
  size_t keep = 0;
  for (const Pattern& pattern : patterns_) keep = std::max(keep, pattern.matched);
  result.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return result;
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace sirocco
