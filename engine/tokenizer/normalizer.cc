#include "engine/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>

#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// Below U+0300 nothing changes in NFC and nothing joins what stands before it: each such character
// begins a stretch that can be normalised alone.
constexpr uint8_t kFirstLeadByte = 0xCC;  // of U+0300

bool MayChange(char byte) {
  return static_cast<uint8_t>(byte) >= kFirstLeadByte;  // a lead byte: trail bytes are below 0xC0
}

// Marks that Unicode got after version 9.0, of which Hugging Face's tables are: there they have no
// combining class and compose with nothing, and so must they here.
constexpr std::pair<char32_t, char32_t> kLaterMarks[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},
    {0x0C3C, 0x0C3C},   {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}};

bool IsLaterMark(char32_t c) {
  const auto* range = std::lower_bound(
      std::begin(kLaterMarks), std::end(kLaterMarks), c,
      [](const std::pair<char32_t, char32_t>& marks, char32_t c) { return marks.second < c; });
  return range != std::end(kLaterMarks) && c >= range->first;
}

// The end of the stretch that begins at `pos`; *changes: it has more than its first, inert
// character.
size_t StretchEnd(std::string_view text, size_t pos, bool* changes) {
  *changes = MayChange(text[pos]);
  ReadUtf8(text, &pos);
  while (pos < text.size() && MayChange(text[pos])) {
    size_t next = pos;
    if (IsLaterMark(ReadUtf8(text, &next))) break;
    *changes = true;
    pos = next;
  }
  return pos;
}

int CombiningClass(utf8proc_int32_t c) {
  return IsLaterMark(static_cast<char32_t>(c)) ? 0 : utf8proc_get_property(c)->combining_class;
}

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
