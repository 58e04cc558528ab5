#include "engine/model/file_error.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

constexpr size_t kShownBytes = 80;

std::string Located(std::string_view path, std::string_view what) {
  return absl::StrCat(std::string(path), ": ", std::string(what));
}

}  // namespace

std::string Shown(std::string_view text) {
  const bool cut = text.size() > kShownBytes;
  const std::string escaped = absl::CHexEscape(std::string(text.substr(0, kShownBytes)));
  return absl::StrCat("'", escaped, cut ? "..." : "", "'");
}

absl::Status InvalidFile(std::string_view path, std::string_view what) {
  return absl::InvalidArgumentError(Located(path, what));
}

absl::Status UnsupportedFile(std::string_view path, std::string_view what) {
  return absl::UnimplementedError(Located(path, what));
}

}  // namespace sirocco
