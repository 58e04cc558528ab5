#include "engine/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>

#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// Below U+0300 nothing changes in NFC and nothing joins what stands before it: each such character
// begins a stretch that can be normalised alone.
constexpr uint8_t kFirstLeadByte = 0xCC;  // of U+0300

bool MayChange(char byte) {
  return static_cast<uint8_t>(byte) >= kFirstLeadByte;  // a lead byte: trail bytes are below 0xC0
}

// The end of the stretch that begins at `pos`; *changes: it has more than its first, inert
// character.
size_t StretchEnd(std::string_view text, size_t pos, bool* changes) {
  *changes = MayChange(text[pos]);
  ReadUtf8(text, &pos);
  while (pos < text.size() && MayChange(text[pos])) {
    *changes = true;
    ReadUtf8(text, &pos);
  }
  return pos;
}

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// utf8proc's own reordering is quadratic in a run of combining marks, so marks are sorted here.
void OrderMarks(std::vector<utf8proc_int32_t>* characters) {
  const auto is_mark = [](utf8proc_int32_t c) { return CombiningClass(c) != 0; };
  auto begin = characters->begin();
  while (begin != characters->end()) {
    begin = std::find_if(begin, characters->end(), is_mark);
    const auto end = std::find_if_not(begin, characters->end(), is_mark);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    begin = end;
  }
}

void AppendNfc(std::string_view stretch, std::string* out) {
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(stretch.size());
  for (size_t pos = 0; pos < stretch.size();) {
    utf8proc_int32_t parts[8];  // a canonical decomposition has at most four
    const auto c = static_cast<utf8proc_int32_t>(ReadUtf8(stretch, &pos));
    int boundary = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(c, parts, std::size(parts), UTF8PROC_DECOMPOSE, &boundary);
    if (count > 0 && count <= static_cast<utf8proc_ssize_t>(std::size(parts))) {
      characters.insert(characters.end(), parts, parts + count);
    } else {
      characters.push_back(c);
    }
  }
  OrderMarks(&characters);
  const auto count =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(static_cast<char32_t>(characters[i]), out);
  }
}

// Joins the results of the stretches; after each calls done(begin, end, size of the result so far).
template <typename Done>
std::string ApplyNfc(std::string_view text, Done done) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    bool changes = false;
    const size_t end = StretchEnd(text, pos, &changes);
    if (changes) {
      AppendNfc(text.substr(pos, end - pos), &out);
    } else {
      out.append(text.substr(pos, end - pos));
    }
    done(pos, end, out.size());
    pos = end;
  }
  return out;
}

}  // namespace

std::string Normalizer::Apply(std::string_view text) const {
  if (form_ == Form::kNone || std::none_of(text.begin(), text.end(), MayChange)) {
    return std::string(text);
  }
  return ApplyNfc(text, [](size_t, size_t, size_t) {});
}

std::string Normalizer::Apply(std::string_view text, const std::vector<bool>& trusted,
                              std::vector<bool>* result_trusted) const {
  if (form_ == Form::kNone) {
    *result_trusted = trusted;
    return std::string(text);
  }
  result_trusted->clear();
  return ApplyNfc(text, [&](size_t begin, size_t end, size_t size) {
    bool all = true;
    for (size_t i = begin; i < end; ++i) all = all && trusted[i];
    result_trusted->resize(size, all);
  });
}

}  // namespace sirocco
