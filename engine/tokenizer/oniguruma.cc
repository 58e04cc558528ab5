#include "engine/tokenizer/oniguruma.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

constexpr char kSupported[] =
    "supported: literals, ., |, ^, $, [...] with ranges, (...), (?:...), (?i:...) over ASCII, "
    "(?>...), "
    "lookaround, ? * + with lazy and possessive forms, {n}, {n,}, {n,m}, \\p{...} of general "
    "categories and common scripts, \\s \\d \\w and their negations, \\r \\n \\t \\f \\v \\xHH "
    "\\x{H} \\uHHHH";

// The members of a class; PCRE2's \s also has U+180E, its \w lacks marks and connectors.
constexpr char kSpaces[] =
    R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr char kNotSpaces[] =
    R"(\x{00}-\x{08}\x{0e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{d7ff})"
    R"(\x{e000}-\x{10ffff})";
constexpr char kWord[] = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside of a class Oniguruma's \w goes by its table of Latin-1, where superscript digits and
// fractions are word characters.
constexpr char kLoneWord[] = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

constexpr std::string_view kCategories[] = {"C",  "Cc", "Cf", "Cn", "Co", "L",  "Ll", "Lm", "Lo",
                                            "Lt", "Lu", "M",  "Mc", "Me", "Mn", "N",  "Nd", "Nl",
                                            "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps",
                                            "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};
// A bare script name means Script_Extensions to PCRE2, Script to Oniguruma.
constexpr std::string_view kScripts[] = {
    "Arabic",   "Armenian",  "Bengali",   "Bopomofo", "Common",   "Cyrillic", "Devanagari",
    "Ethiopic", "Georgian",  "Greek",     "Gujarati", "Gurmukhi", "Han",      "Hangul",
    "Hebrew",   "Hiragana",  "Inherited", "Kannada",  "Katakana", "Khmer",    "Lao",
    "Latin",    "Malayalam", "Mongolian", "Myanmar",  "Oriya",    "Sinhala",  "Tamil",
    "Telugu",   "Thai",      "Tibetan"};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAsciiLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsAscii(char c) { return static_cast<uint8_t>(c) < 0x80; }

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) {
      absl::Status status = Next();
      if (!status.ok()) return status;
    }
    return std::move(out_);
  }

 private:
  // What a piece of the pattern was, as far as the next piece's meaning depends on it.
  enum class Last { kNothing, kAtom, kQuantifier };

  absl::Status Unsupported(size_t at, std::string_view what) const {
    return absl::UnimplementedError(absl::StrCat("regex: ", std::string(what), " at offset ", at,
                                                 " of ", Shown(in_), " is not supported; ",
                                                 kSupported));
  }

  bool At(std::string_view text) const { return in_.substr(pos_, text.size()) == text; }
  bool IgnoresCase() const { return !groups_.empty() && groups_.back(); }

  absl::Status Next() {
    const char c = in_[pos_];
    switch (c) {
      case '(':
        return OpenGroup();
      case ')':
        if (!groups_.empty()) groups_.pop_back();
        return Copy(1, Last::kAtom);
      case '|':
      case '^':
      case '$':
        return Copy(1, Last::kNothing);
      case '[':
        return Class();
      case '?':
      case '*':
      case '+':
      case '{':
        return Quantifier();
      case '\\':
        return Escape(/*in_class=*/false);
      case '.':
        return Copy(1, Last::kAtom);
      default:
        return Literal();
    }
  }

  absl::Status Copy(size_t length, Last last) {
    out_.append(in_.substr(pos_, length));
    pos_ += length;
    last_ = last;
    previous_literal_ = 0;
    return absl::OkStatus();
  }

  absl::Status OpenGroup() {
    constexpr std::string_view kOpeners[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    if (At("(?i:")) {
      groups_.push_back(true);
      return Copy(4, Last::kNothing);
    }
    for (std::string_view opener : kOpeners) {
      if (!At(opener)) continue;
      groups_.push_back(IgnoresCase());
      return Copy(opener.size(), Last::kNothing);
    }
    if (At("(?") || At("(*")) return Unsupported(pos_, std::string(in_.substr(pos_, 4)));
    groups_.push_back(IgnoresCase());
    return Copy(1, Last::kNothing);
  }

  absl::Status Quantifier() {
    const size_t start = pos_;
    if (last_ != Last::kAtom) return Unsupported(start, "a quantifier without an operand");
    size_t end = pos_ + 1;
    bool fixed = false;
    if (in_[pos_] == '{') {
      absl::Status status = Interval(&end, &fixed);
      if (!status.ok()) return status;
    }
    if (end < in_.size() && (in_[end] == '?' || in_[end] == '+')) {
      // Ruby: {n}? is optional, {n,m}+ repeats the repetition.
      if (in_[start] == '{' && (in_[end] == '+' || fixed)) {
        return Unsupported(start, std::string(in_.substr(start, end + 1 - start)));
      }
      ++end;
    }
    return Copy(end - start, Last::kQuantifier);
  }

  // {n}, {n,} or {n,m}
  absl::Status Interval(size_t* end, bool* fixed) const {
    size_t at = pos_ + 1;
    const size_t digits = at;
    while (at < in_.size() && IsDigit(in_[at])) ++at;
    const bool has_minimum = at > digits;
    *fixed = at < in_.size() && in_[at] == '}';
    if (at < in_.size() && in_[at] == ',') {
      ++at;
      while (at < in_.size() && IsDigit(in_[at])) ++at;
    }
    if (!has_minimum || at >= in_.size() || in_[at] != '}') return Unsupported(pos_, "this brace");
    *end = at + 1;
    return absl::OkStatus();
  }

  absl::Status Literal() {
    const size_t start = pos_;
    size_t end = pos_;
    ReadUtf8(in_, &end);
    if (in_[start] == '}' || in_[start] == ']') out_.push_back('\\');
    absl::Status status = CheckCase(start, in_[start]);
    if (!status.ok()) return status;
    out_.append(in_.substr(start, end - start));
    pos_ = end;
    last_ = Last::kAtom;
    return absl::OkStatus();
  }

  // Oniguruma's case folding also joins several characters ("ss" is the same as U+00DF), PCRE2's
  // does not: under (?i: only what no such folding reaches.
  absl::Status CheckCase(size_t at, char c) {
    if (!IgnoresCase()) return absl::OkStatus();
    if (!IsAscii(c)) return Unsupported(at, "a character beyond ASCII under (?i:");
    const char lower = IsAsciiLetter(c) ? static_cast<char>(c | 0x20) : c;
    const char before = previous_literal_;
    previous_literal_ = lower;
    constexpr std::string_view kFoldings[] = {"ss", "ff", "fi", "fl", "st"};
    for (std::string_view folding : kFoldings) {
      if (before == folding[0] && lower == folding[1]) {
        return Unsupported(at, absl::StrCat("'", std::string(folding), "' under (?i:"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Escape(bool in_class) {
    const size_t start = pos_;
    if (start + 1 >= in_.size()) return Unsupported(start, "a lone backslash");
    const char c = in_[start + 1];
    switch (c) {
      case 'r':
      case 'n':
      case 't':
      case 'f':
        return Copy(2, Last::kAtom);
      case 'v':
        return Replace(2, R"(\x{0b})");
      case 'p':
      case 'P':
        return Property();
      case 's':
        return ReplaceClass(in_class, kSpaces, false);
      case 'S':
        return in_class ? Replace(2, kNotSpaces) : ReplaceClass(in_class, kSpaces, true);
      case 'd':
        return Replace(2, R"(\p{Nd})");
      case 'D':
        return Replace(2, R"(\P{Nd})");
      case 'w':
        return ReplaceClass(in_class, in_class ? kWord : kLoneWord, false);
      case 'W':
        if (in_class) return Unsupported(start, "\\W in a class");
        return ReplaceClass(in_class, kLoneWord, true);
      case 'A':
      case 'z':
        if (in_class) break;
        return Copy(2, Last::kNothing);
      case 'x':
      case 'u':
        return CodePoint();
      default:
        break;
    }
    if (!IsAscii(c) || IsDigit(c) || IsAsciiLetter(c)) {
      return Unsupported(start, std::string(in_.substr(start, 2)));
    }
    return Copy(2, Last::kAtom);
  }

  absl::Status Replace(size_t length, std::string_view replacement) {
    out_.append(replacement);
    pos_ += length;
    last_ = Last::kAtom;
    previous_literal_ = 0;
    return absl::OkStatus();
  }

  absl::Status ReplaceClass(bool in_class, std::string_view members, bool negated) {
    if (in_class) return Replace(2, members);
    return Replace(2, absl::StrCat(negated ? "[^" : "[", std::string(members), "]"));
  }

  // \xHH below 0x80 (above it means a byte to Oniguruma), \x{H...}, \uHHHH
  absl::Status CodePoint() {
    const size_t start = pos_;
    size_t at = start + 2;
    const bool braces = in_[start + 1] == 'x' && at < in_.size() && in_[at] == '{';
    if (braces) ++at;
    const size_t digits = at;
    const size_t most = in_[start + 1] == 'u' ? 4 : braces ? 6 : 2;
    while (at < in_.size() && at - digits < most && IsHex(in_[at])) ++at;
    const std::string hex(in_.substr(digits, at - digits));
    const bool complete = braces ? !hex.empty() && at < in_.size() && in_[at] == '}'
                                 : hex.size() == most && (most == 4 || hex[0] < '8');
    if (!complete || IgnoresCase()) return Unsupported(start, "this escaped code point");
    return Replace(at + (braces ? 1 : 0) - start, absl::StrCat("\\x{", hex, "}"));
  }

  // \p{Name}, \p{^Name}, \P{Name}
  absl::Status Property() {
    const size_t start = pos_;
    const size_t close = in_.find('}', start);
    if (close == std::string_view::npos || start + 2 >= in_.size() || in_[start + 2] != '{') {
      return Unsupported(start, "a property without braces");
    }
    std::string_view name = in_.substr(start + 3, close - start - 3);
    const bool caret = !name.empty() && name[0] == '^';
    if (caret) name.remove_prefix(1);
    const bool negated = caret != (in_[start + 1] == 'P');
    const bool category =
        std::find(std::begin(kCategories), std::end(kCategories), name) != std::end(kCategories);
    const bool script =
        std::find(std::begin(kScripts), std::end(kScripts), name) != std::end(kScripts);
    if (!category && !script) {
      return Unsupported(start, absl::StrCat("property '", std::string(name), "'"));
    }
    // Under (?i: Oniguruma adds the other cases of each character.
    if (IgnoresCase()) return Unsupported(start, "a property under (?i:");
    return Replace(close + 1 - start, absl::StrCat(negated ? "\\P{" : "\\p{", script ? "sc:" : "",
                                                   std::string(name), "}"));
  }

  absl::Status Class() {
    const size_t start = pos_;
    absl::Status status = Copy(At("[^") ? 2 : 1, Last::kNothing);
    const size_t first = pos_;
    Member last = Member::kNone;
    while (status.ok() && pos_ < in_.size() && in_[pos_] != ']') status = ClassMember(first, &last);
    if (!status.ok()) return status;
    if (pos_ == first || pos_ >= in_.size()) return Unsupported(start, "an empty or open class");
    return Copy(1, Last::kAtom);
  }

  // What stood last in a class: a hyphen is a range only between two characters.
  enum class Member { kNone, kCharacter, kHyphen, kClosed };

  absl::Status ClassMember(size_t first, Member* last) {
    const char c = in_[pos_];
    if (c == '[' || At("&&")) return Unsupported(pos_, "a set operation in a class");
    if (c == '-') {
      if (pos_ == first || At("-]")) {
        out_.push_back('\\');
        *last = Member::kClosed;
        return Copy(1, Last::kNothing);
      }
      if (*last != Member::kCharacter) return Unsupported(pos_, "a hyphen without a range");
      *last = Member::kHyphen;
      return Copy(1, Last::kNothing);
    }
    const bool set = c == '\\' && pos_ + 1 < in_.size() &&
                     std::string_view("pPsSdDwW").find(in_[pos_ + 1]) != std::string_view::npos;
    if (set && *last == Member::kHyphen) return Unsupported(pos_, "a range to a set");
    *last = set || *last == Member::kHyphen ? Member::kClosed : Member::kCharacter;
    if (c == '\\') return Escape(/*in_class=*/true);
    if (IgnoresCase() && !IsAscii(c)) {
      return Unsupported(pos_, "a character beyond ASCII under (?i:");
    }
    size_t end = pos_;
    ReadUtf8(in_, &end);
    return Copy(end - pos_, Last::kNothing);
  }

  const std::string_view in_;
  std::string out_;
  size_t pos_ = 0;
  Last last_ = Last::kNothing;
  std::vector<bool> groups_;   // open groups: whether case is ignored within
  char previous_literal_ = 0;  // under (?i:, in lower case
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern) {
  if (FindInvalidUtf8(pattern) != pattern.size()) {
    return absl::InvalidArgumentError("regex: not valid UTF-8");
  }
  return Translator(pattern).Run();
}

}  // namespace sirocco
