#include "engine/tokenizer/quote.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {

std::string Quote(std::string_view text) {
  constexpr size_t kMost = 160;
  const bool valid = FindInvalidUtf8(text) == text.size();
  std::string shown(text);
  if (text.size() > kMost) {
    shown.resize(valid ? PreviousUtf8(text, kMost) : kMost);
  }
  shown = valid ? absl::Utf8SafeCEscape(shown) : absl::CHexEscape(shown);
  return absl::StrCat("'", shown, text.size() > kMost ? "...'" : "'");
}

}  // namespace sirocco
