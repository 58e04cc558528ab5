// What happens to text before it is split: nothing, or Unicode's normal form C.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sirocco {

// Immutable; any thread.
class Normalizer {
 public:
  enum class Form { kNone, kNfc };
  explicit Normalizer(Form form) : form_(form) {}

  // False: Apply would change no text at all.
  bool changes_text() const { return form_ != Form::kNone; }

  // NFC (UAX #15) as Hugging Face's tokenizers compute it, in O(n log n) whatever the text is. Text
  // is valid UTF-8.
  std::string Apply(std::string_view text) const;

  // The same for text whose bytes are `trusted` or not: a byte of the result is trusted where all
  // characters that it may have been composed of were.
  std::string Apply(std::string_view text, const std::vector<bool>& trusted,
                    std::vector<bool>* result_trusted) const;

 private:
  Form form_;
};

}  // namespace sirocco
