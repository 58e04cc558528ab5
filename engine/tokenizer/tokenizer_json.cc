#include "engine/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/json_fields.h"
#include "engine/tokenizer/json_parts.h"
#include "engine/tokenizer/json_tree.h"

namespace sirocco {
namespace {

using nlohmann::json;

// Whether the vocabulary spells whatever stands in a text.
bool CoversAllBytes(const BpeVocabulary& vocabulary) {
  for (int b = 0; b < 256; ++b) {
    if (!vocabulary.ids.Contains(ByteLevelCharacter(static_cast<uint8_t>(b)))) return false;
  }
  return true;
}

// What stands for characters without an entry is for vocabularies of text: of a byte-level one all
// bytes have entries where it is asked.
absl::Status CheckFallback(const TokenizerParts& parts) {
  const BpeVocabulary& vocabulary = parts.vocabulary;
  if (parts.unigram && vocabulary.byte_level) {
    return Unsupported("pre_tokenizer", "ByteLevel before a Unigram model", "it before BPE");
  }
  const bool asked = vocabulary.byte_fallback || !vocabulary.unk_token.empty();
  if (!vocabulary.byte_level || !asked || CoversAllBytes(vocabulary)) return absl::OkStatus();
  return Unsupported("model", vocabulary.byte_fallback ? "byte_fallback" : "unk_token",
                     "in a byte-level vocabulary one with all 256 bytes, which needs neither");
}

absl::Status ReadBpe(const json* model, TokenizerTree& tree, TokenizerParts* parts) {
  if (!tree.has_vocabulary) return Malformed("model.vocab", "no object of ids by entry");
  if (!tree.has_merges) return Malformed("model.merges", "no array");
  absl::Status status =
      CheckFields(*model, "model",
                  {"type", "dropout", "unk_token", "continuing_subword_prefix",
                   "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"});
  if (!status.ok()) return status;
  const json* dropout = Field(*model, "dropout");
  if (dropout != nullptr && *dropout != 0) return Unsupported("model", "dropout", "null, 0");
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    absl::StatusOr<std::string> value = StringField(*model, name, "model");
    if (!value.ok()) return value.status();
    if (!value->empty()) return Unsupported("model", name, "null, \"\"");
  }
  absl::StatusOr<bool> fuse_unk = BoolField(*model, "fuse_unk", false, "model");
  absl::StatusOr<std::string> unk_token = StringField(*model, "unk_token", "model");
  absl::StatusOr<bool> byte_fallback = BoolField(*model, "byte_fallback", false, "model");
  absl::StatusOr<bool> ignore_merges = BoolField(*model, "ignore_merges", false, "model");
  for (const absl::Status& field :
       {fuse_unk.status(), unk_token.status(), byte_fallback.status(), ignore_merges.status()}) {
    if (!field.ok()) return field;
  }
  parts->vocabulary = std::move(tree.vocabulary);
  parts->vocabulary.ignore_merges = *ignore_merges;
  parts->vocabulary.byte_fallback = *byte_fallback;
  parts->vocabulary.unk_token = *std::move(unk_token);
  parts->vocabulary.fuse_unk = *fuse_unk;
  return absl::OkStatus();
}

absl::Status ReadUnigram(const json* model, TokenizerTree& tree, TokenizerParts* parts) {
  if (!tree.has_pieces) return Malformed("model.vocab", "no array of texts and scores");
  absl::Status status = CheckFields(*model, "model", {"type", "unk_id", "byte_fallback"});
  if (!status.ok()) return status;
  if (tree.has_merges) return Unsupported("model", "merges in a Unigram model", "them in BPE");
  absl::StatusOr<bool> byte_fallback = BoolField(*model, "byte_fallback", false, "model");
  if (!byte_fallback.ok()) return byte_fallback.status();
  // Without one a character that has no entry would be an error of each text that it stands in.
  const json* unknown = Field(*model, "unk_id");
  if (unknown == nullptr) return Unsupported("model", "no unk_id", "the id of an entry");
  absl::StatusOr<int32_t> unk_id = TokenId(unknown, "model.unk_id");
  if (!unk_id.ok()) return unk_id.status();
  if (static_cast<size_t>(*unk_id) >= tree.scores.size()) {
    return Malformed("model.unk_id",
                     absl::StrCat(*unk_id, " is no entry; there are ", tree.scores.size()));
  }
  parts->vocabulary = std::move(tree.vocabulary);
  parts->vocabulary.byte_fallback = *byte_fallback;
  parts->vocabulary.unk_token = parts->vocabulary.ids.text(static_cast<size_t>(*unk_id));
  const double least = *std::min_element(tree.scores.begin(), tree.scores.end());
  parts->unigram = UnigramScores{.of_entries = std::move(tree.scores),
                                 .of_unknown = least - UnigramScores::kUnknownPenalty};
  return absl::OkStatus();
}

absl::Status ReadModel(TokenizerTree& tree, TokenizerParts* parts) {
  const json* model = Field(tree.root, "model");
  if (model == nullptr) return Malformed("model", "there is none");
  const std::string type = TypeOf(*model);
  if (type == "Unigram") return ReadUnigram(model, tree, parts);
  // Old files do not name it: what has merges is BPE.
  if (type == "BPE" || (type.empty() && tree.has_merges)) return ReadBpe(model, tree, parts);
  return UnsupportedType(*model, "model", "BPE, Unigram");
}

// The ids of added tokens, as Hugging Face gives them, whatever the file says: a vocabulary entry
// keeps its own, the others follow the vocabulary's entries in order.
class AddedTokenIds {
 public:
  explicit AddedTokenIds(const Vocabulary& vocabulary)
      : vocabulary_(vocabulary), next_(static_cast<int32_t>(vocabulary.size())) {}

  int32_t Give(const std::string& content) {
    const int32_t id = vocabulary_.Find(content).value_or(next_);
    next_ = std::max(next_, id + 1);
    return id;
  }

 private:
  const Vocabulary& vocabulary_;
  int32_t next_;
};

absl::Status ReadAddedTokens(const json& root, TokenizerParts* parts) {
  const json* list = Field(root, "added_tokens");
  if (list == nullptr) return absl::OkStatus();
  if (!list->is_array()) return Malformed("added_tokens", "no array");
  AddedTokenIds ids(parts->vocabulary.ids);
  for (size_t i = 0; i < list->size(); ++i) {
    const json& entry = (*list)[i];
    const std::string where = absl::StrCat("added_tokens[", i, "]");
    absl::StatusOr<AddedToken> token = ReadAddedToken(entry, where);
    if (!token.ok()) return token.status();
    absl::StatusOr<int32_t> id = TokenId(Field(entry, "id"), where + ".id");
    if (!id.ok()) return id.status();
    // One without content can be found nowhere; Hugging Face passes over it too.
    if (token->content.empty()) continue;
    token->id = ids.Give(token->content);
    parts->added_tokens.push_back(*std::move(token));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerParts> ParseTokenizerJson(std::string_view text) {
  absl::StatusOr<TokenizerTree> tree = ReadTokenizerTree(text);
  if (!tree.ok()) return tree.status();
  absl::Status status =
      CheckFields(tree->root, "tokenizer.json",
                  {"version", "truncation", "padding", "added_tokens", "normalizer",
                   "pre_tokenizer", "post_processor", "decoder", "model"});
  if (!status.ok()) return status;
  const json* version = Field(tree->root, "version");
  if (version != nullptr && *version != "1.0") {
    return Unsupported("version",
                       version->is_string() ? Shown(version->get<std::string>()) : "this", "'1.0'");
  }
  TokenizerParts parts;
  // The model first: a vocabulary of another kind is what a reader wants to hear of.
  for (const absl::Status& read :
       {ReadModel(*tree, &parts), ReadAddedTokens(tree->root, &parts),
        ReadNormalizer(tree->root, &parts), ReadPreTokenizer(tree->root, &parts),
        CheckFallback(parts), ReadPostProcessor(tree->root, &parts),
        ReadDecoder(tree->root, &parts)}) {
    if (!read.ok()) return read;
  }
  return parts;
}

}  // namespace sirocco
