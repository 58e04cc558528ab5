#include "engine/chat/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/string_literal.h"
#include "engine/chat/strings.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

// Longest first.
constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                           "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                           ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

bool IsDigitByte(char byte) { return byte >= '0' && byte <= '9'; }

// All line ends as \n, and without a final one: jinja2 does not keep it.
std::string NormalizeLines(std::string_view source) {
  std::string lines;
  lines.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      lines.push_back(source[i]);
      continue;
    }
    lines.push_back('\n');
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!lines.empty() && lines.back() == '\n') lines.pop_back();
  return lines;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), text_(source_) {}

  absl::StatusOr<std::vector<Token>> Run();

 private:
  // The sign behind a tag's opening: '-', '+' or nothing.
  char SignAt(size_t offset) const;
  bool StartsWith(size_t offset, std::string_view part) const {
    return text_.compare(offset, part.size(), part) == 0;
  }
  size_t SkipSpace(size_t offset) const;
  // Behind the end of a tag at `offset`, or npos where there is none. A block's end takes a line
  // end with it, a minus all space.
  size_t TagEnd(size_t offset, std::string_view end, bool takes_line_end) const;
  std::optional<size_t> RawEnd(size_t offset) const;

  void Advance(size_t offset);
  void Emit(TokenType type, std::string text = std::string());
  // Text [position_, tag), less what the tag strips.
  void EmitData(size_t tag, char sign, bool strips_line);

  absl::Status LexComment(size_t tag);
  absl::Status LexRaw(size_t tag, size_t content);
  absl::Status LexTag(size_t tag, bool block);
  absl::Status LexToken();
  absl::Status LexNumber();
  absl::Status LexString();
  absl::Status LexOperator();
  size_t DigitsEnd(size_t offset, bool (*digit)(char)) const;

  const std::string source_;
  const std::string_view text_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what was read last ended a line
  std::vector<char> open_;     // closing brackets that are awaited
  std::vector<Token> tokens_;
};

char Lexer::SignAt(size_t offset) const {
  const bool sign = offset < text_.size() && (text_[offset] == '-' || text_[offset] == '+');
  return sign ? text_[offset] : '\0';
}

size_t Lexer::SkipSpace(size_t offset) const {
  return offset + StripRange(text_.substr(offset), std::nullopt, true, false).first;
}

size_t Lexer::TagEnd(size_t offset, std::string_view end, bool takes_line_end) const {
  if (StartsWith(offset, end)) {
    const size_t behind = offset + end.size();
    return takes_line_end && StartsWith(behind, "\n") ? behind + 1 : behind;
  }
  const char sign = SignAt(offset);
  if (sign == '\0' || !StartsWith(offset + 1, end)) return std::string_view::npos;
  const size_t behind = offset + 1 + end.size();
  if (sign == '-') return SkipSpace(behind);
  return takes_line_end ? behind : std::string_view::npos;
}

// Behind {% raw %} at `offset`, where there is one.
std::optional<size_t> Lexer::RawEnd(size_t offset) const {
  size_t at = offset + 2;
  if (SignAt(at) != '\0') ++at;
  at = SkipSpace(at);
  if (!StartsWith(at, "raw")) return std::nullopt;
  at = SkipSpace(at + 3);
  if (StartsWith(at, "%}")) return at + 2;
  if (StartsWith(at, "-%}")) return SkipSpace(at + 3);
  return std::nullopt;
}

void Lexer::Advance(size_t offset) {
  line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(position_),
                                       text_.begin() + static_cast<std::ptrdiff_t>(offset), '\n'));
  line_starting_ = offset > position_ ? text_[offset - 1] == '\n' : line_starting_;
  position_ = offset;
}

void Lexer::Emit(TokenType type, std::string text) {
  Token& token = tokens_.emplace_back();
  token.type = type;
  token.line = line_;
  token.text = std::move(text);
}

void Lexer::EmitData(size_t tag, char sign, bool strips_line) {
  std::string_view data = text_.substr(position_, tag - position_);
  if (sign == '-') {
    data = data.substr(0, StripRange(data, std::nullopt, false, true).second);
  } else if (sign != '+' && strips_line) {
    const size_t line_end = data.rfind('\n');
    const size_t line_begin = line_end == std::string_view::npos ? 0 : line_end + 1;
    const auto [begin, end] = StripRange(data.substr(line_begin), std::nullopt, true, false);
    const bool blank = begin == end;
    if ((line_begin > 0 || line_starting_) && blank) data = data.substr(0, line_begin);
  }
  if (!data.empty()) Emit(TokenType::kData, std::string(data));
  Advance(tag);
}

absl::Status Lexer::LexComment(size_t tag) {
  EmitData(tag, SignAt(tag + 2), /*strips_line=*/true);
  const size_t end = text_.find("#}", tag + (SignAt(tag + 2) == '\0' ? 2 : 3));
  if (end == std::string_view::npos) return SyntaxError(line_, "Missing end of comment tag");
  // The sign of the opening is not one of the end.
  const bool signed_end = end > tag + 3 && SignAt(end - 1) != '\0';
  Advance(TagEnd(signed_end ? end - 1 : end, "#}", /*takes_line_end=*/true));
  return absl::OkStatus();
}

absl::Status Lexer::LexRaw(size_t tag, size_t content) {
  EmitData(tag, SignAt(tag + 2), /*strips_line=*/true);
  const int line = line_;
  Advance(content);
  for (size_t at = text_.find("{%", content); at != std::string_view::npos;
       at = text_.find("{%", at + 2)) {
    const char sign = SignAt(at + 2);
    size_t name = SkipSpace(at + (sign == '\0' ? 2 : 3));
    if (!StartsWith(name, "endraw")) continue;
    const size_t behind = TagEnd(SkipSpace(name + 6), "%}", /*takes_line_end=*/true);
    if (behind == std::string_view::npos) continue;
    EmitData(at, sign, /*strips_line=*/true);
    Advance(behind);
    return absl::OkStatus();
  }
  return SyntaxError(line, "Missing end of raw directive");
}

size_t Lexer::DigitsEnd(size_t offset, bool (*digit)(char)) const {
  if (offset >= text_.size() || !digit(text_[offset])) return offset;
  ++offset;
  while (offset < text_.size()) {
    const bool underscore = text_[offset] == '_' && offset + 1 < text_.size();
    const size_t next = underscore ? offset + 1 : offset;
    if (!digit(text_[next])) break;
    offset = next + 1;
  }
  return offset;
}

absl::Status Lexer::LexNumber() {
  const auto without_underscores = [&](size_t begin, size_t end) {
    std::string digits(text_.substr(begin, end - begin));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    return digits;
  };
  const size_t whole = DigitsEnd(position_, IsDigitByte);
  size_t end = whole;
  if (end < text_.size() && text_[end] == '.') end = DigitsEnd(end + 1, IsDigitByte);
  if (end == whole + 1) end = whole;  // a point that no digit follows
  if (end < text_.size() && (text_[end] | 0x20) == 'e') {
    const size_t exponent = SignAt(end + 1) == '\0' ? end + 1 : end + 2;
    const size_t exponent_end = DigitsEnd(exponent, IsDigitByte);
    if (exponent_end > exponent) end = exponent_end;
  }
  const bool behind_point = position_ > 0 && text_[position_ - 1] == '.';
  if (end > whole && !behind_point) {
    Emit(TokenType::kFloat);
    tokens_.back().real = std::strtod(without_underscores(position_, end).c_str(), nullptr);
    Advance(end);
    return absl::OkStatus();
  }
  int base = 10;
  size_t begin = position_;
  end = whole;
  const char marker = StartsWith(position_, "0") && position_ + 1 < text_.size()
                          ? static_cast<char>(text_[position_ + 1] | 0x20)
                          : '\0';
  const int marked = marker == 'x' ? 16 : marker == 'o' ? 8 : marker == 'b' ? 2 : 0;
  if (marked != 0) {
    bool (*const digit)(char) =
        marked == 16
            ? [](char c) { return IsDigitByte(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); }
        : marked == 8 ? [](char c) { return c >= '0' && c <= '7'; }
                      : [](char c) { return c == '0' || c == '1'; };
    const size_t digits = position_ + 2 + (StartsWith(position_ + 2, "_") ? 1 : 0);
    const size_t digits_end = DigitsEnd(digits, digit);
    if (digits_end > digits) {
      base = marked;
      begin = digits;
      end = digits_end;
    }
  } else if (StartsWith(position_, "0")) {
    end = DigitsEnd(position_, [](char c) { return c == '0'; });
  }
  const std::string digits = without_underscores(begin, end);
  int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (result.ec == std::errc::result_out_of_range) {
    return SyntaxError(line_, absl::StrCat("the integer ", digits, " does not fit into 64 bits"));
  }
  Emit(TokenType::kInteger);
  tokens_.back().integer = value;
  Advance(end);
  return absl::OkStatus();
}

absl::Status Lexer::LexString() {
  const char quote = text_[position_];
  size_t end = position_ + 1;
  while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
  if (end >= text_.size()) {
    return SyntaxError(
        line_, absl::StrCat("a string is not closed; it begins with ", std::string(1, quote)));
  }
  absl::StatusOr<std::string> value =
      ResolveEscapes(text_.substr(position_ + 1, end - position_ - 1));
  if (!value.ok()) return SyntaxError(line_, std::string(value.status().message()));
  Emit(TokenType::kString, *std::move(value));
  Advance(end + 1);
  return absl::OkStatus();
}

absl::Status Lexer::LexOperator() {
  for (const std::string_view op : kOperators) {
    if (!StartsWith(position_, op)) continue;
    if (op == "(" || op == "[" || op == "{") {
      open_.push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
    } else if (op == ")" || op == "]" || op == "}") {
      if (open_.empty()) {
        return SyntaxError(line_, absl::StrCat("unexpected '", std::string(op), "'"));
      }
      if (open_.back() != op[0]) {
        return SyntaxError(line_, absl::StrCat("unexpected '", std::string(op), "', expected '",
                                               std::string(1, open_.back()), "'"));
      }
      open_.pop_back();
    }
    Emit(TokenType::kOperator, std::string(op));
    Advance(position_ + op.size());
    return absl::OkStatus();
  }
  const size_t size = CharacterAt(text_, position_).size;
  return SyntaxError(
      line_, absl::StrCat("unexpected char '", std::string(text_.substr(position_, size)), "'"));
}

absl::Status Lexer::LexToken() {
  const char first = text_[position_];
  if (IsDigitByte(first)) return LexNumber();
  if (first == '"' || first == '\'') return LexString();
  if (!IsIdentifierStart(CharacterAt(text_, position_).code)) return LexOperator();
  size_t end = position_;
  while (end < text_.size()) {
    const Character character = CharacterAt(text_, end);
    if (!IsIdentifierPart(character.code)) break;
    end += character.size;
  }
  Emit(TokenType::kName, std::string(text_.substr(position_, end - position_)));
  Advance(end);
  return absl::OkStatus();
}

absl::Status Lexer::LexTag(size_t tag, bool block) {
  const char sign = SignAt(tag + 2);
  EmitData(tag, sign, /*strips_line=*/block);
  const int line = line_;
  Emit(block ? TokenType::kBlockBegin : TokenType::kVariableBegin);
  Advance(tag + (sign == '\0' ? 2 : 3));
  while (position_ < text_.size()) {
    Advance(SkipSpace(position_));
    if (open_.empty()) {
      const size_t behind = TagEnd(position_, block ? "%}" : "}}", /*takes_line_end=*/block);
      if (behind != std::string_view::npos) {
        Emit(block ? TokenType::kBlockEnd : TokenType::kVariableEnd);
        Advance(behind);
        return absl::OkStatus();
      }
    }
    if (position_ >= text_.size()) break;
    SIROCCO_CHAT_RETURN_IF_ERROR(LexToken());
  }
  return SyntaxError(line, block ? "a tag {% is not closed" : "a tag {{ is not closed");
}

absl::StatusOr<std::vector<Token>> Lexer::Run() {
  size_t brace = 0;
  while ((brace = text_.find('{', brace)) != std::string_view::npos) {
    const char kind = brace + 1 < text_.size() ? text_[brace + 1] : '\0';
    if (kind != '%' && kind != '{' && kind != '#') {
      ++brace;
      continue;
    }
    absl::Status status;
    if (kind == '#') {
      status = LexComment(brace);
    } else if (const auto content = kind == '%' ? RawEnd(brace) : std::nullopt) {
      status = LexRaw(brace, *content);
    } else {
      status = LexTag(brace, /*block=*/kind == '%');
    }
    SIROCCO_CHAT_RETURN_IF_ERROR(status);
    brace = position_;
  }
  if (position_ < text_.size()) Emit(TokenType::kData, std::string(text_.substr(position_)));
  Advance(text_.size());
  Emit(TokenType::kEnd);
  return std::move(tokens_);
}

}  // namespace

absl::Status SyntaxError(int line, std::string_view message) {
  return absl::InvalidArgumentError(
      absl::StrCat("chat template line ", line, ": ", std::string(message)));
}

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(NormalizeLines(source)).Run();
}

}  // namespace sirocco::jinja
