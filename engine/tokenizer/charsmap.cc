#include "engine/tokenizer/charsmap.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

uint32_t ReadLittle(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

// A unit is a node: the byte that leads to it, how far its children are, and whether a key ends
// there. A key's value lies in a unit of its own.
uint32_t LabelOf(uint32_t unit) { return unit & 0x800000FF; }
uint32_t OffsetOf(uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }
bool EndsKey(uint32_t unit) { return (unit & 0x100) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & 0x7FFFFFFF; }

absl::Status Wrong(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("the charsmap ", std::string(what)));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Charsmap>> Charsmap::Parse(std::string_view bytes) {
  if (bytes.size() > kMaxBytes) {
    return Wrong(absl::StrCat("has ", bytes.size(), " bytes; allowed: ", kMaxBytes));
  }
  const uint32_t trie = bytes.size() < 4 ? 0 : ReadLittle(bytes, 0);
  if (trie == 0 || trie % 4 != 0 || trie > bytes.size() - 4) {
    return Wrong(absl::StrCat("has no trie of ", trie, " bytes in its ", bytes.size()));
  }
  // No make_shared: the constructor is private.
  std::shared_ptr<Charsmap> map(new Charsmap);
  map->units_.reserve(trie / 4);
  for (size_t at = 4; at < 4 + size_t{trie}; at += 4) map->units_.push_back(ReadLittle(bytes, at));
  map->texts_ = bytes.substr(4 + size_t{trie});
  if (FindInvalidUtf8(map->texts_) != map->texts_.size()) return Wrong("has texts not in UTF-8");
  for (size_t begin = 0; begin < map->texts_.size();) {
    const size_t end = std::min(map->texts_.find('\0', begin), map->texts_.size());
    if (end - begin > kMaxWritten) {
      return Wrong(absl::StrCat("has a text of ", end - begin, " bytes; allowed: ", kMaxWritten));
    }
    begin = end + 1;
  }
  return map;
}

std::optional<Charsmap::Rule> Charsmap::Find(std::string_view text, bool shortest) const {
  std::optional<Rule> found;
  uint32_t at = OffsetOf(units_[0]);
  for (size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (at >= units_.size() || LabelOf(units_[at]) != byte) break;
    const bool ends_key = EndsKey(units_[at]);
    at ^= OffsetOf(units_[at]);
    const bool within_character =
        i + 1 < text.size() && (static_cast<uint8_t>(text[i + 1]) & 0xC0) == 0x80;
    if (!ends_key || at >= units_.size() || within_character) continue;
    const std::optional<std::string_view> written = Written(ValueOf(units_[at]));
    if (!written) continue;
    found = Rule{i + 1, *written};
    if (shortest) break;
  }
  return found;
}

std::optional<std::string_view> Charsmap::Written(uint32_t at) const {
  if (at >= texts_.size() || (static_cast<uint8_t>(texts_[at]) & 0xC0) == 0x80) return std::nullopt;
  const std::string_view rest = std::string_view(texts_).substr(at);
  return rest.substr(0, rest.find('\0'));
}

}  // namespace sirocco
