#include "engine/tokenizer/normal_forms.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "engine/tokenizer/code_ranges.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// Below U+0300 nothing joins what stands before it: each such character begins a stretch that can
// be normalised alone.
constexpr uint8_t kFirstLeadByte = 0xCC;  // of U+0300

// Marks that Unicode got after version 9.0, up to 15.0: there they have no combining class and
// compose with nothing.
constexpr CodeRange kLaterMarks[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},
    {0x0AFA, 0x0AFF},   {0x0B55, 0x0B55},   {0x0C04, 0x0C04},   {0x0C3C, 0x0C3C},
    {0x0CF3, 0x0CF3},   {0x0D00, 0x0D00},   {0x0D3B, 0x0D3C},   {0x0D81, 0x0D81},
    {0x0EBA, 0x0EBA},   {0x0ECE, 0x0ECE},   {0x1715, 0x1715},   {0x180F, 0x180F},
    {0x1ABF, 0x1ACE},   {0x1CF7, 0x1CF7},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0xA8FF, 0xA8FF},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x11073, 0x11074},
    {0x110C2, 0x110C2}, {0x11145, 0x11146}, {0x111C9, 0x111C9}, {0x111CE, 0x111CF},
    {0x11241, 0x11241}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x1182C, 0x1183A},
    {0x11930, 0x11935}, {0x11937, 0x11938}, {0x1193B, 0x1193E}, {0x11940, 0x11940},
    {0x11942, 0x11943}, {0x119D1, 0x119D7}, {0x119DA, 0x119E0}, {0x119E4, 0x119E4},
    {0x11A01, 0x11A0A}, {0x11A33, 0x11A39}, {0x11A3B, 0x11A3E}, {0x11A47, 0x11A47},
    {0x11A51, 0x11A5B}, {0x11A8A, 0x11A99}, {0x11D31, 0x11D36}, {0x11D3A, 0x11D3A},
    {0x11D3C, 0x11D3D}, {0x11D3F, 0x11D45}, {0x11D47, 0x11D47}, {0x11D8A, 0x11D8E},
    {0x11D90, 0x11D91}, {0x11D93, 0x11D97}, {0x11EF3, 0x11EF6}, {0x11F00, 0x11F01},
    {0x11F03, 0x11F03}, {0x11F34, 0x11F3A}, {0x11F3E, 0x11F42}, {0x13440, 0x13440},
    {0x13447, 0x13455}, {0x16F4F, 0x16F4F}, {0x16F7F, 0x16F87}, {0x16FE4, 0x16FE4},
    {0x16FF0, 0x16FF1}, {0x1CF00, 0x1CF2D}, {0x1CF30, 0x1CF46}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};

// Marks of version 9.0 that became letters.
constexpr CodeRange kFormerMarks[] = {{0x1CF2, 0x1CF3}};

// Characters with a decomposition that came after version 9.0: there they stand for themselves.
constexpr CodeRange kLaterDecompositions[] = {
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x107BA},
    {0x11938, 0x11938}, {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

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

bool IsMark(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  const bool is_mark = category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
                       category == UTF8PROC_CATEGORY_ME;
  return (is_mark && !IsIn(kLaterMarks, c)) || IsIn(kFormerMarks, c);
}

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
