#include "engine/tokenizer/added_tokens.h"

#include <algorithm>

#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// `\w` as UTS #18 has it, which Rust's regex follows.
bool IsWordCharacter(std::string_view character) {
  static const absl::StatusOr<Regex>& word = *new absl::StatusOr<Regex>(
      Regex::Compile(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}])"));
  if (!word.ok()) return false;
  Regex::Finder finder(*word);
  finder.Start(character);
  const auto found = finder.Next();
  return found.ok() && found->has_value();
}

bool StandsAlone(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    const size_t previous = PreviousUtf8(text, begin);
    if (IsWordCharacter(text.substr(previous, begin - previous))) return false;
  }
  if (end == text.size()) return true;
  size_t next = end;
  ReadUtf8(text, &next);
  return !IsWordCharacter(text.substr(end, next - end));
}

// `least`: not before here.
size_t SkipSpaceBefore(std::string_view text, size_t begin, size_t least) {
  while (begin > least) {
    const size_t previous = PreviousUtf8(text, begin);
    size_t pos = previous;
    if (!IsWhiteSpace(ReadUtf8(text, &pos))) break;
    begin = previous;
  }
  return begin;
}

size_t SkipSpaceBehind(std::string_view text, size_t end) {
  while (end < text.size()) {
    size_t pos = end;
    if (!IsWhiteSpace(ReadUtf8(text, &pos))) break;
    end = pos;
  }
  return end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<std::pair<AddedToken, std::string>>& tokens)
    : nodes_(1) {
  root_child_.fill(-1);
  for (const auto& [token, content] : tokens) {
    if (content.empty()) continue;
    int32_t node = 0;
    for (char byte : content) {
      int32_t child = Child(node, byte);
      if (child < 0) {
        child = static_cast<int32_t>(nodes_.size());
        nodes_.push_back({.sibling = nodes_[node].child, .byte = byte});
        nodes_[node].child = child;
        if (node == 0) root_child_[static_cast<uint8_t>(byte)] = child;
      }
      node = child;
    }
    if (nodes_[node].token >= 0) continue;  // two that normalise to the same: the first
    nodes_[node].token = static_cast<int32_t>(tokens_.size());
    tokens_.push_back(token);
  }
}

int32_t AddedTokenMatcher::Child(int32_t node, char byte) const {
  if (node == 0) return root_child_[static_cast<uint8_t>(byte)];
  int32_t child = nodes_[node].child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

// A special token that is not trusted is no match at all, so that it hides no other one. With
// kAsText it does match here, and Split passes over it: so does Hugging Face.
AddedTokenMatcher::Match AddedTokenMatcher::MatchAt(std::string_view text, size_t begin,
                                                    SpecialTokens special,
                                                    const std::vector<bool>& trusted) const {
  Match match;
  int32_t node = 0;
  bool all_trusted = true;
  for (size_t i = begin; i < text.size(); ++i) {
    node = Child(node, text[i]);
    if (node < 0) break;
    if (special == SpecialTokens::kWhereTrusted) all_trusted = all_trusted && trusted[i];
    const int32_t token = nodes_[node].token;
    if (token >= 0 && (all_trusted || !tokens_[token].special)) match = {token, i + 1};
  }
  return match;
}

std::vector<AddedTokenMatcher::Piece> AddedTokenMatcher::Split(
    std::string_view text, SpecialTokens special, const std::vector<bool>& trusted) const {
  std::vector<Piece> pieces;
  size_t text_begin = 0;  // of what no token has taken yet
  for (size_t pos = 0; pos < text.size();) {
    const Match match = MatchAt(text, pos, special, trusted);
    if (match.token < 0) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[match.token];
    size_t begin = pos;
    size_t end = match.end;
    pos = match.end;
    if (special == SpecialTokens::kAsText && token.special) continue;
    if (token.single_word && !StandsAlone(text, begin, end)) continue;
    if (token.lstrip) begin = std::max(text_begin, SkipSpaceBefore(text, begin, text_begin));
    // What an earlier one took is not walked again: white space that is a token of its own may
    // begin anywhere in it.
    if (token.rstrip) end = SkipSpaceBehind(text, std::max(end, text_begin));
    if (text_begin < begin) pieces.push_back({-1, text_begin, begin});
    // Nothing is left of a token of white space that the one before it took with its rstrip.
    if (begin < end) pieces.push_back({token.id, begin, end});
    text_begin = end;
  }
  if (text_begin < text.size()) pieces.push_back({-1, text_begin, text.size()});
  return pieces;
}

}  // namespace sirocco
