#include "engine/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/code_ranges.h"
#include "engine/tokenizer/graphemes.h"
#include "engine/tokenizer/normal_forms.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// What normalising may make of text. The longest that a character of Unicode becomes is eleven
// times as long, and white space is often written with three bytes.
constexpr size_t kMostGrowth = 36;
constexpr size_t kMostGrowthBytes = 4096;

// The text that a step makes of another one.
class Rewriter {
 public:
  // `trusted`: by byte of `from`; null: nobody asks.
  Rewriter(std::string_view from, const std::vector<bool>* trusted)
      : from_(from), trusted_(trusted) {
    text_.reserve(from.size());
  }

  // In place of from[begin, end).
  void Put(std::string_view bytes, size_t begin, size_t end) {
    text_.append(bytes);
    if (trusted_ == nullptr) return;
    // What is kept, byte for byte, keeps its marks.
    if (bytes.data() == from_.data() + begin && bytes.size() == end - begin) {
      text_trusted_.insert(text_trusted_.end(), trusted_->begin() + static_cast<ptrdiff_t>(begin),
                           trusted_->begin() + static_cast<ptrdiff_t>(end));
      return;
    }
    bool all = true;
    for (size_t i = begin; i < end; ++i) all = all && (*trusted_)[i];
    text_trusted_.resize(text_.size(), all);
  }
  void Keep(size_t begin, size_t end) {
    if (begin < end) Put(from_.substr(begin, end - begin), begin, end);
  }

  std::string TakeText() { return std::move(text_); }
  std::vector<bool> TakeTrusted() { return std::move(text_trusted_); }

 private:
  const std::string_view from_;
  const std::vector<bool>* trusted_;
  std::string text_;
  std::vector<bool> text_trusted_;
};

absl::Status Replace(const Regex& pattern, std::string_view text, std::string_view content,
                     Rewriter* out) {
  Regex::Finder finder(pattern);
  finder.Start(text);
  size_t kept = 0;
  while (true) {
    absl::StatusOr<std::optional<Regex::Span>> found = finder.Next();
    if (!found.ok()) return found.status();
    if (!found->has_value()) break;
    out->Keep(kept, (*found)->begin);
    out->Put(content, (*found)->begin, (*found)->end);
    kept = (*found)->end;
  }
  out->Keep(kept, text.size());
  return absl::OkStatus();
}

void Strip(const NormalizerStep& step, std::string_view text, Rewriter* out) {
  size_t begin = 0;
  size_t end = text.size();
  while (step.left && begin < end) {
    size_t next = begin;
    if (!IsWhiteSpace(ReadUtf8(text, &next))) break;
    begin = next;
  }
  while (step.right && begin < end) {
    size_t at = PreviousUtf8(text, end);
    const size_t previous = at;
    if (!IsWhiteSpace(ReadUtf8(text, &at))) break;
    end = previous;
  }
  out->Keep(begin, end);
}

// Each character by itself, as Rust's char::to_lowercase: of all of Unicode only U+0130 becomes
// two.
void Lowercase(std::string_view text, Rewriter* out) {
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = ReadUtf8(text, &pos);
    std::string lower;
    if (c == 0x130) {
      lower = "i\xCC\x87";
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), &lower);
    }
    out->Put(lower, begin, pos);
  }
}

void StripAccents(std::string_view text, Rewriter* out) {
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (!IsMark(ReadUtf8(text, &pos))) out->Keep(begin, pos);
  }
}

// https://github.com/huggingface/tokenizers/blob/main/tokenizers/src/normalizers/unicode.rs, Nmt
void Nmt(std::string_view text, Rewriter* out) {
  constexpr CodeRange kGone[] = {{0x01, 0x08}, {0x0B, 0x0B}, {0x0E, 0x1F},
                                 {0x7F, 0x7F}, {0x8F, 0x8F}, {0x9F, 0x9F}};
  constexpr CodeRange kSpaces[] = {{0x09, 0x0A},     {0x0C, 0x0D},     {0x1680, 0x1680},
                                   {0x200B, 0x200F}, {0x2028, 0x2029}, {0x2581, 0x2581},
                                   {0xFEFF, 0xFEFF}, {0xFFFD, 0xFFFD}};
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = ReadUtf8(text, &pos);
    if (IsIn(kGone, c)) continue;
    if (IsIn(kSpaces, c)) {
      out->Put(" ", begin, pos);
    } else {
      out->Keep(begin, pos);
    }
  }
}

// What a grapheme of up to five bytes begins with stands for all of it; of longer ones, and of
// those without a rule, each character is looked up by itself.
// https://github.com/huggingface/tokenizers/blob/main/tokenizers/src/normalizers/precompiled.rs
void Precompiled(const Charsmap& charsmap, std::string_view text, Rewriter* out) {
  constexpr size_t kLongest = 5;
  const auto put = [&](size_t begin, size_t end) {
    const auto rule = charsmap.Shortest(text.substr(begin, end - begin));
    if (rule) out->Put(rule->written, begin, end);
    return rule.has_value();
  };
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = GraphemeEnd(text, begin);
    if (end - begin <= kLongest && put(begin, end)) {
      begin = end;
      continue;
    }
    while (begin < end) {
      const size_t at = begin;
      ReadUtf8(text, &begin);
      if (!put(at, begin)) out->Keep(at, begin);
    }
  }
}

// The longest of the texts that a text begins with.
size_t LongestKept(const PieceTrie& kept, std::string_view text) {
  size_t longest = 0;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size() && kept.Step(text[i], &node); ++i) {
    if (kept.Entry(node) >= 0) longest = i + 1;
  }
  return longest;
}

void ApplyCharsmap(const NormalizerStep& step, std::string_view text, Rewriter* out) {
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const std::string_view rest = text.substr(begin);
    pos += step.kept != nullptr ? LongestKept(*step.kept, rest) : 0;
    const auto rule = pos == begin ? step.charsmap->Longest(rest) : std::nullopt;
    if (rule) {
      pos += rule->length;
      out->Put(rule->written, begin, pos);
      continue;
    }
    if (pos == begin) ReadUtf8(text, &pos);
    out->Keep(begin, pos);
  }
}

NormalForm FormOf(NormalizerStep::Kind kind) {
  using Kind = NormalizerStep::Kind;
  return {.compatible = kind == Kind::kNfkc || kind == Kind::kNfkd,
          .composed = kind == Kind::kNfc || kind == Kind::kNfkc};
}

absl::Status ApplyStep(const NormalizerStep& step, std::string_view text, Rewriter* out) {
  switch (step.kind) {
    case NormalizerStep::Kind::kNfc:
    case NormalizerStep::Kind::kNfd:
    case NormalizerStep::Kind::kNfkc:
    case NormalizerStep::Kind::kNfkd:
      ForEachNormalized(FormOf(step.kind), text,
                        [out](std::string_view result, size_t begin, size_t end) {
                          out->Put(result, begin, end);
                        });
      return absl::OkStatus();
    case NormalizerStep::Kind::kLowercase:
      Lowercase(text, out);
      return absl::OkStatus();
    case NormalizerStep::Kind::kStripAccents:
      StripAccents(text, out);
      return absl::OkStatus();
    case NormalizerStep::Kind::kStrip:
      Strip(step, text, out);
      return absl::OkStatus();
    case NormalizerStep::Kind::kPrepend:
      if (!text.empty()) out->Put(step.text, 0, 1);
      out->Keep(0, text.size());
      return absl::OkStatus();
    case NormalizerStep::Kind::kReplace:
      return Replace(*step.pattern, text, step.text, out);
    case NormalizerStep::Kind::kNmt:
      Nmt(text, out);
      return absl::OkStatus();
    case NormalizerStep::Kind::kPrecompiled:
      Precompiled(*step.charsmap, text, out);
      return absl::OkStatus();
    case NormalizerStep::Kind::kCharsmap:
      ApplyCharsmap(step, text, out);
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ApplySteps(const std::vector<NormalizerStep>& steps,
                                       std::string_view text, std::vector<bool>* trusted) {
  std::string result(text);
  for (const NormalizerStep& step : steps) {
    Rewriter out(result, trusted);
    absl::Status status = ApplyStep(step, result, &out);
    if (!status.ok()) return status;
    std::string next = out.TakeText();
    if (next.size() > kMostGrowth * text.size() + kMostGrowthBytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "normalising makes ", next.size(), " bytes of a text of ", text.size(), " bytes"));
    }
    if (trusted != nullptr) *trusted = out.TakeTrusted();
    result = std::move(next);
  }
  return result;
}

}  // namespace

absl::StatusOr<std::string> Normalizer::Apply(std::string_view text) const {
  return ApplySteps(steps_, text, nullptr);
}

absl::StatusOr<std::string> Normalizer::Apply(std::string_view text,
                                              const std::vector<bool>& trusted,
                                              std::vector<bool>* result_trusted) const {
  *result_trusted = trusted;
  return ApplySteps(steps_, text, result_trusted);
}

}  // namespace sirocco
