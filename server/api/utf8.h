// Cutting text where a character ends.
#pragma once

#include <cstddef>
#include <string_view>

namespace sirocco {

// The length of the longest prefix of `text` (valid UTF-8) of at most `max_bytes` bytes that ends
// with a whole character.
inline size_t Utf8PrefixLength(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text.size();
  size_t end = max_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return end;
}

}  // namespace sirocco
