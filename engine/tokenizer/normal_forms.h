// Unicode's normal forms (UAX #15) as Hugging Face's tokenizers compute them: by the tables of
// Unicode 9.0.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace sirocco {

struct NormalForm {
  bool compatible;  // NFKC, NFKD
  bool composed;    // NFC, NFKC
};

// Goes through valid UTF-8 in stretches that can be normalised alone, in O(n log n) whatever the
// text is: calls put(result, begin, end) for each, with what stands for text[begin, end).
void ForEachNormalized(NormalForm form, std::string_view text,
                       const std::function<void(std::string_view, size_t, size_t)>& put);

// Whether it is of the general category Mark.
bool IsMark(char32_t c);

}  // namespace sirocco
