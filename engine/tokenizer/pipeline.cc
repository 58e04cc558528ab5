#include "engine/tokenizer/pipeline.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// The bytes of all tokens, one behind the other; less than 4 GiB, as a Vocabulary's.
class TokenTable {
 public:
  void Reserve(size_t tokens, size_t bytes) {
    ends_.reserve(tokens);
    bytes_.reserve(bytes);
  }
  void Append(std::string_view bytes, bool special) {
    bytes_.append(bytes);
    ends_.push_back(static_cast<uint32_t>(bytes_.size()));
    special_.push_back(special);
  }
  int32_t size() const { return static_cast<int32_t>(ends_.size()); }
  bool Contains(int32_t id) const { return id >= 0 && id < size(); }
  std::string_view bytes(int32_t id) const {
    const size_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(bytes_).substr(begin, ends_[id] - begin);
  }
  bool special(int32_t id) const { return special_[id]; }

 private:
  std::string bytes_;
  std::vector<uint32_t> ends_;
  std::vector<bool> special_;
};

constexpr size_t kMaxTextBytes = std::numeric_limits<int32_t>::max();

absl::Status TooLong(size_t bytes) {
  return absl::InvalidArgumentError(absl::StrCat("text of ", bytes, " bytes is too long"));
}

class PipelineTokenizer final : public Tokenizer {
 public:
  // Added tokens and the texts that they are looked for as.
  using Wanted = std::vector<std::pair<AddedToken, std::string>>;

  using Model = std::variant<Bpe, Unigram>;

  PipelineTokenizer(TokenizerParts parts, const Wanted& raw, const Wanted& normalized, Model model,
                    TokenTable table)
      : parts_(std::move(parts)),
        raw_tokens_(raw),
        normalized_tokens_(normalized),
        model_(std::move(model)),
        table_(std::move(table)) {
    bos_id_ = Find(parts_.bos_token);
    if (const std::optional<int32_t> eos = Find(parts_.eos_token)) end_ids_.push_back(*eos);
    // Both are large, and needed no more.
    parts_.vocabulary = {};
    parts_.added_tokens = std::vector<AddedToken>();  // not `= {}`, which keeps the memory
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const TokenizerOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_special_tokens) ids = parts_.prefix;
    SpecialTokens special = SpecialTokens::kAsText;
    std::vector<bool> trusted;
    if (options.parse_special_tokens && options.parsed_bytes < text.size()) {
      special = SpecialTokens::kWhereTrusted;
      trusted.resize(text.size());
      std::fill_n(trusted.begin(), options.parsed_bytes, true);
    } else if (options.parse_special_tokens) {
      special = SpecialTokens::kEverywhere;
    }
    absl::Status status = EncodeTo(text, special, trusted, &ids);
    if (!status.ok()) return status;
    if (options.add_special_tokens) {
      ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
    }
    return ids;
  }

  absl::StatusOr<std::vector<int32_t>> EncodeChat(const ProvenText& chat) const override {
    if (chat.trusted.size() != chat.text.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("chat: ", chat.text.size(), " bytes with ", chat.trusted.size(), " marks"));
    }
    std::vector<int32_t> ids;
    absl::Status status = EncodeTo(chat.text, SpecialTokens::kWhereTrusted, chat.trusted, &ids);
    if (!status.ok()) return status;
    return ids;
  }

  std::string_view TokenBytes(int32_t id) const override {
    return table_.Contains(id) ? table_.bytes(id) : std::string_view();
  }
  bool IsSpecial(int32_t id) const override { return table_.Contains(id) && table_.special(id); }
  int32_t vocab_size() const override { return table_.size(); }
  const DecodeRules& decode_rules() const override { return parts_.decoder.rules; }
  std::optional<int32_t> bos_token_id() const override { return bos_id_; }
  std::vector<int32_t> end_token_ids() const override { return end_ids_; }
  std::string_view bos_token() const override { return parts_.bos_token; }
  std::string_view eos_token() const override { return parts_.eos_token; }
  const std::optional<std::string>& chat_template() const override { return parts_.chat_template; }

 private:
  struct Scratch {
    PreTokenizer::Words words;
    Bpe::Scratch bpe;
    Unigram::Scratch unigram;
  };

  std::optional<int32_t> Find(const std::string& content) const {
    for (const AddedToken& token : parts_.added_tokens) {
      if (token.content == content) return token.id;
    }
    return parts_.vocabulary.ids.Find(content);
  }

  // Added tokens are found in the text as it is; what lies between is normalised; in that those
  // added tokens are found that are looked for in normalised text; the rest is words.
  absl::Status EncodeTo(std::string_view text, SpecialTokens special,
                        const std::vector<bool>& trusted, std::vector<int32_t>* ids) const {
    const size_t invalid = FindInvalidUtf8(text);
    if (invalid != text.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("text is not valid UTF-8 at byte ", invalid, " of ", text.size()));
    }
    if (text.size() >= kMaxTextBytes) return TooLong(text.size());
    Scratch scratch;
    for (const AddedTokenMatcher::Piece& piece : raw_tokens_.Split(text, special, trusted)) {
      if (piece.id >= 0) {
        ids->push_back(piece.id);
        continue;
      }
      const std::string_view raw = text.substr(piece.begin, piece.end - piece.begin);
      std::vector<bool> raw_trusted;
      if (special == SpecialTokens::kWhereTrusted) {
        raw_trusted.assign(trusted.begin() + static_cast<ptrdiff_t>(piece.begin),
                           trusted.begin() + static_cast<ptrdiff_t>(piece.end));
      }
      absl::Status status = EncodeRaw(raw, piece.begin == 0, special, raw_trusted, &scratch, ids);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // `is_first`: the whole text begins here.
  absl::Status EncodeRaw(std::string_view raw, bool is_first, SpecialTokens special,
                         const std::vector<bool>& trusted, Scratch* scratch,
                         std::vector<int32_t>* ids) const {
    if (!parts_.normalizer.changes_text()) {
      return EncodeNormalized(raw, is_first, special, trusted, scratch, ids);
    }
    std::vector<bool> normalized_trusted;
    const absl::StatusOr<std::string> text =
        special == SpecialTokens::kWhereTrusted
            ? parts_.normalizer.Apply(raw, trusted, &normalized_trusted)
            : parts_.normalizer.Apply(raw);
    if (!text.ok()) return text.status();
    return EncodeNormalized(*text, is_first, special, normalized_trusted, scratch, ids);
  }

  absl::Status EncodeNormalized(std::string_view text, bool is_first, SpecialTokens special,
                                const std::vector<bool>& trusted, Scratch* scratch,
                                std::vector<int32_t>* ids) const {
    if (normalized_tokens_.empty()) return EncodeWords(text, is_first, scratch, ids);
    for (const AddedTokenMatcher::Piece& piece : normalized_tokens_.Split(text, special, trusted)) {
      if (piece.id >= 0) {
        ids->push_back(piece.id);
        continue;
      }
      absl::Status status = EncodeWords(text.substr(piece.begin, piece.end - piece.begin),
                                        is_first && piece.begin == 0, scratch, ids);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status EncodeWords(std::string_view text, bool is_first, Scratch* scratch,
                           std::vector<int32_t>* ids) const {
    absl::Status status = parts_.pre_tokenizer.Split(text, is_first, &scratch->words);
    if (!status.ok()) return status;
    for (std::string_view word : scratch->words.words) {
      if (word.size() >= kMaxTextBytes) return TooLong(word.size());
      if (const auto* bpe = std::get_if<Bpe>(&model_)) {
        bpe->Encode(word, &scratch->bpe, ids);
      } else {
        std::get<Unigram>(model_).Encode(word, &scratch->unigram, ids);
      }
    }
    return absl::OkStatus();
  }

  TokenizerParts parts_;
  const AddedTokenMatcher raw_tokens_;
  const AddedTokenMatcher normalized_tokens_;
  const Model model_;
  const TokenTable table_;
  std::optional<int32_t> bos_id_;
  std::vector<int32_t> end_ids_;
};

absl::Status CheckId(int64_t id, std::string_view what) {
  if (id >= 0 && id < kMaxVocabularySize) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "id ", id, " of ", Shown(what), " is out of range: 0 to ", kMaxVocabularySize - 1));
}

// Entries by id: what a token is called, by its place in the vocabulary or, before that, among the
// added tokens; and whether it is special.
struct Entry {
  int32_t entry = -1;
  int32_t added = -1;
  bool special = false;
  bool is_there() const { return entry >= 0 || added >= 0; }
};

std::string_view ContentOf(const TokenizerParts& parts, const Entry& entry) {
  if (entry.added >= 0) return parts.added_tokens[entry.added].content;
  return entry.entry >= 0 ? parts.vocabulary.ids.text(entry.entry) : std::string_view();
}

absl::Status CheckAddedTokens(const TokenizerParts& parts) {
  if (parts.added_tokens.size() > kMaxAddedTokens) {
    return absl::InvalidArgumentError(absl::StrCat("has ", parts.added_tokens.size(),
                                                   " added tokens; allowed: ", kMaxAddedTokens));
  }
  size_t bytes = 0;
  for (const AddedToken& token : parts.added_tokens) {
    if (token.content.empty() || token.content.size() > AddedTokenMatcher::kMaxContent) {
      return absl::InvalidArgumentError(absl::StrCat("added token ", token.id, " has ",
                                                     token.content.size(), " bytes; allowed: 1 to ",
                                                     AddedTokenMatcher::kMaxContent));
    }
    bytes += token.content.size();
  }
  if (bytes <= kMaxAddedBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("its added tokens have ", bytes, " bytes; allowed: ", kMaxAddedBytes));
}

absl::StatusOr<std::vector<Entry>> CollectEntries(const TokenizerParts& parts) {
  std::vector<Entry> entries;
  const auto place = [&](int32_t id, std::string_view content) -> absl::StatusOr<Entry*> {
    absl::Status status = CheckId(id, content);
    if (!status.ok()) return status;
    if (static_cast<size_t>(id) >= entries.size()) entries.resize(static_cast<size_t>(id) + 1);
    Entry& entry = entries[id];
    if (entry.is_there() && ContentOf(parts, entry) != content) {
      return absl::InvalidArgumentError(absl::StrCat(
          "id ", id, " is both ", Shown(ContentOf(parts, entry)), " and ", Shown(content)));
    }
    return &entry;
  };
  for (size_t i = 0; i < parts.vocabulary.ids.size(); ++i) {
    absl::StatusOr<Entry*> entry = place(parts.vocabulary.ids.id(i), parts.vocabulary.ids.text(i));
    if (!entry.ok()) return entry.status();
    (*entry)->entry = static_cast<int32_t>(i);
  }
  absl::Status status = CheckAddedTokens(parts);
  if (!status.ok()) return status;
  Vocabulary added;
  for (size_t i = 0; i < parts.added_tokens.size(); ++i) {
    const AddedToken& token = parts.added_tokens[i];
    absl::StatusOr<Entry*> entry = place(token.id, token.content);
    if (!entry.ok()) return entry.status();
    (*entry)->added = static_cast<int32_t>(i);
    (*entry)->special |= token.special;
    const int32_t known_id = parts.vocabulary.ids.Find(token.content).value_or(token.id);
    added.Add(token.content, token.id);
    const int32_t first_id = *added.Find(token.content);
    if (token.id != known_id || token.id != first_id) {
      return absl::InvalidArgumentError(absl::StrCat("added token ", Shown(token.content),
                                                     " has id ", token.id, " and id ",
                                                     token.id != known_id ? known_id : first_id));
    }
  }
  if (entries.empty()) return absl::InvalidArgumentError("the vocabulary is empty");
  return entries;
}

absl::Status CheckReferences(const TokenizerParts& parts, const std::vector<Entry>& entries) {
  for (const auto* ids : {&parts.prefix, &parts.suffix}) {
    for (int32_t id : *ids) {
      if (id >= 0 && static_cast<size_t>(id) < entries.size() && entries[id].is_there()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the post-processor adds id ", id, ", which is no token"));
    }
  }
  for (const auto* token : {&parts.bos_token, &parts.eos_token}) {
    if (token->empty() || parts.vocabulary.ids.Contains(*token)) continue;
    const bool added = std::any_of(parts.added_tokens.begin(), parts.added_tokens.end(),
                                   [token](const AddedToken& a) { return a.content == *token; });
    if (added) continue;
    return absl::InvalidArgumentError(absl::StrCat(token == &parts.bos_token ? "bos" : "eos",
                                                   " token ", Shown(*token),
                                                   " is not in the vocabulary"));
  }
  return absl::OkStatus();
}

// The bytes that a token stands for.
std::string BytesOf(std::string_view content, const DecoderParts& decoder) {
  if (decoder.byte_level) {
    // Added tokens too are read as bytes where all their characters are of the alphabet; others
    // stand for themselves.
    std::optional<std::string> bytes = ByteLevelDecode(content);
    return bytes ? *std::move(bytes) : std::string(content);
  }
  if (decoder.byte_fallback) {
    const std::optional<uint8_t> byte = ByteFallbackDecode(content);
    if (byte) return std::string(1, static_cast<char>(*byte));
  }
  std::string text(content);
  for (const auto& [from, to] : decoder.replacements) {
    text = absl::StrReplaceAll(text, {{from, to}});
  }
  return text;
}

// What an added token is looked for as.
absl::StatusOr<std::string> TextOf(const TokenizerParts& parts, const AddedToken& token) {
  if (!token.normalized || parts.added_tokens_are_normal) return token.content;
  return parts.normalizer.Apply(token.content);
}

absl::StatusOr<TokenTable> MakeTable(const TokenizerParts& parts,
                                     const std::vector<Entry>& entries) {
  TokenTable table;
  size_t bytes = 0;
  for (const Entry& entry : entries) bytes += ContentOf(parts, entry).size();
  table.Reserve(entries.size(), bytes);
  for (const Entry& entry : entries) {
    // Hugging Face shows those that are looked for in normalised text as they are looked for.
    const absl::StatusOr<std::string> shown = entry.added >= 0
                                                  ? TextOf(parts, parts.added_tokens[entry.added])
                                                  : std::string(ContentOf(parts, entry));
    if (!shown.ok()) return shown.status();
    table.Append(BytesOf(*shown, parts.decoder), entry.special);
  }
  return table;
}

absl::StatusOr<PipelineTokenizer::Wanted> Select(const TokenizerParts& parts, bool normalized) {
  PipelineTokenizer::Wanted out;
  size_t bytes = 0;
  for (const bool special : {true, false}) {  // special ones come first where two are alike
    for (const AddedToken& token : parts.added_tokens) {
      if (token.normalized != normalized || token.special != special) continue;
      absl::StatusOr<std::string> text = TextOf(parts, token);
      if (!text.ok()) return text.status();
      bytes += text->size();
      if (bytes > kMaxAddedBytes) {
        return absl::InvalidArgumentError(absl::StrCat("its added tokens have more than ",
                                                       kMaxAddedBytes, " bytes when normalised"));
      }
      out.emplace_back(token, *std::move(text));
    }
  }
  return out;
}

absl::StatusOr<PipelineTokenizer::Model> MakeModel(TokenizerParts& parts,
                                                   const std::vector<bool>& special) {
  if (parts.unigram) return Unigram::Make(parts.vocabulary, *std::move(parts.unigram), special);
  return Bpe::Make(parts.vocabulary, special);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts) {
  absl::StatusOr<std::vector<Entry>> entries = CollectEntries(parts);
  if (!entries.ok()) return entries.status();
  absl::Status status = CheckReferences(parts, *entries);
  if (!status.ok()) return status;
  std::vector<bool> special;
  for (const Entry& entry : *entries) special.push_back(entry.special);
  absl::StatusOr<PipelineTokenizer::Model> model = MakeModel(parts, special);
  if (!model.ok()) return model.status();
  parts.unigram.reset();
  parts.vocabulary.merges = {};
  parts.vocabulary.scores = std::vector<float>();
  absl::StatusOr<PipelineTokenizer::Wanted> raw = Select(parts, /*normalized=*/false);
  if (!raw.ok()) return raw.status();
  absl::StatusOr<PipelineTokenizer::Wanted> normalized = Select(parts, /*normalized=*/true);
  if (!normalized.ok()) return normalized.status();
  absl::StatusOr<TokenTable> table = MakeTable(parts, *entries);
  if (!table.ok()) return table.status();
  return std::make_unique<PipelineTokenizer>(std::move(parts), *raw, *normalized, *std::move(model),
                                             *std::move(table));
}

}  // namespace sirocco
