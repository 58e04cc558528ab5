#include "engine/tokenizer/normal_forms.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

using Range = std::pair<char32_t, char32_t>;

// Below U+0300 nothing joins what stands before it: each such character begins a stretch that can
// be normalised alone.
constexpr uint8_t kFirstLeadByte = 0xCC;  // of U+0300

// Marks that Unicode got after version 9.0: there they have no combining class and compose with
// nothing.
constexpr Range kLaterMarks[] = {
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

// Characters with a decomposition that came after version 9.0: there they stand for themselves.
constexpr Range kLaterDecompositions[] = {
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x107BA},
    {0x11938, 0x11938}, {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

template <size_t kSize>
bool IsIn(const Range (&ranges)[kSize], char32_t c) {
  const auto* range =
      std::lower_bound(std::begin(ranges), std::end(ranges), c,
                       [](const Range& range, char32_t value) { return range.second < value; });
  return range != std::end(ranges) && c >= range->first;
}

// Whether a character that begins so may change by itself.
bool MayChange(NormalForm form, char lead) {
  return static_cast<uint8_t>(lead) >= (form.compatible || !form.composed ? 0x80 : kFirstLeadByte);
}

bool MayJoin(char lead) { return static_cast<uint8_t>(lead) >= kFirstLeadByte; }

// The end of the stretch that begins at `pos`; *changes: normalising it may change it.
size_t StretchEnd(NormalForm form, std::string_view text, size_t pos, bool* changes) {
  *changes = MayChange(form, text[pos]);
  ReadUtf8(text, &pos);
  while (pos < text.size() && MayJoin(text[pos])) {
    size_t next = pos;
    if (IsIn(kLaterMarks, ReadUtf8(text, &next))) break;
    *changes = true;
    pos = next;
  }
  return pos;
}

int CombiningClass(utf8proc_int32_t c) {
  return IsIn(kLaterMarks, static_cast<char32_t>(c)) ? 0
                                                     : utf8proc_get_property(c)->combining_class;
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

void AppendDecomposed(NormalForm form, char32_t c, std::vector<utf8proc_int32_t>* out) {
  utf8proc_int32_t parts[32];  // the longest, of U+FDFA, has 18
  const int options = form.compatible ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
  int boundary = 0;
  const utf8proc_ssize_t count =
      IsIn(kLaterDecompositions, c)
          ? 0
          : utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, std::size(parts),
                                    static_cast<utf8proc_option_t>(options), &boundary);
  if (count > 0 && count <= static_cast<utf8proc_ssize_t>(std::size(parts))) {
    out->insert(out->end(), parts, parts + count);
  } else {
    out->push_back(static_cast<utf8proc_int32_t>(c));
  }
}

std::string Normalized(NormalForm form, std::string_view stretch) {
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(stretch.size());
  for (size_t pos = 0; pos < stretch.size();) {
    AppendDecomposed(form, ReadUtf8(stretch, &pos), &characters);
  }
  OrderMarks(&characters);
  auto count = static_cast<utf8proc_ssize_t>(characters.size());
  if (form.composed) {
    count = utf8proc_normalize_utf32(
        characters.data(), count,
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  }
  std::string out;
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(static_cast<char32_t>(characters[i]), &out);
  }
  return out;
}

}  // namespace

void ForEachNormalized(NormalForm form, std::string_view text,
                       const std::function<void(std::string_view, size_t, size_t)>& put) {
  size_t kept = 0;  // from here on nothing has changed
  for (size_t pos = 0; pos < text.size();) {
    bool changes = false;
    const size_t end = StretchEnd(form, text, pos, &changes);
    if (changes) {
      if (kept < pos) put(text.substr(kept, pos - kept), kept, pos);
      put(Normalized(form, text.substr(pos, end - pos)), pos, end);
      kept = end;
    }
    pos = end;
  }
  if (kept < text.size()) put(text.substr(kept), kept, text.size());
}

}  // namespace sirocco
