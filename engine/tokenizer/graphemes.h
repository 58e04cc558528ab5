// Extended grapheme clusters (UAX #29): what a reader takes for one character.
#pragma once

#include <cstddef>
#include <string_view>

namespace sirocco {

// The end of the cluster that begins at `pos` of valid UTF-8; pos must be less than text.size() and
// where a cluster begins. By the properties of Unicode 15.0 and the rules of 15.1.
size_t GraphemeEnd(std::string_view text, size_t pos);

}  // namespace sirocco
