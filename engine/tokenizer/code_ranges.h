// Tables of code points.
#pragma once

#include <algorithm>
#include <iterator>
#include <utility>

namespace sirocco {

using CodeRange = std::pair<char32_t, char32_t>;  // both ends belong to it

// `ranges` in order, none overlapping.
template <size_t kSize>
bool IsIn(const CodeRange (&ranges)[kSize], char32_t c) {
  const auto* range =
      std::lower_bound(std::begin(ranges), std::end(ranges), c,
                       [](const CodeRange& range, char32_t value) { return range.second < value; });
  return range != std::end(ranges) && c >= range->first;
}

}  // namespace sirocco
