#include "engine/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/json_fields.h"
#include "engine/tokenizer/json_tree.h"
#include "engine/tokenizer/oniguruma.h"

namespace sirocco {
namespace {

using nlohmann::json;

std::string TypeOf(const json& component) {
  const json* type = Field(component, "type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : std::string();
}

absl::Status UnsupportedType(const json& component, const std::string& where,
                             std::string_view supported) {
  return Unsupported(where, absl::StrCat("type ", Shown(TypeOf(component))), supported);
}

std::string Element(const std::string& where, std::string_view name, size_t i) {
  return absl::StrCat(where, ".", std::string(name), "[", i, "]");
}

// A part of a file that is alone, or several in a Sequence: calls read(part, its place) for each.
// Sequences do not stand in sequences.
template <typename Read>
absl::Status ForEachPart(const json& component, const std::string& where, const char* list,
                         Read read) {
  if (TypeOf(component) != "Sequence") return read(component, where);
  absl::Status status = CheckFields(component, where, {"type", list});
  if (!status.ok()) return status;
  absl::StatusOr<const json*> parts = ArrayField(component, list, where);
  if (!parts.ok()) return parts.status();
  for (size_t i = 0; i < (*parts)->size(); ++i) {
    status = read((**parts)[i], Element(where, list, i));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadNormalizer(const json& root, TokenizerParts* parts) {
  const json* normalizer = Field(root, "normalizer");
  if (normalizer == nullptr) return absl::OkStatus();
  return ForEachPart(*normalizer, "normalizer", "normalizers",
                     [parts](const json& part, const std::string& where) {
                       if (TypeOf(part) != "NFC") {
                         return UnsupportedType(part, where, "NFC, a Sequence of it, null");
                       }
                       parts->normalizer = Normalizer::Form::kNfc;  // twice is the same as once
                       return CheckFields(part, where, {"type"});
                     });
}

// Patterns in use have up to four; each is compiled.
constexpr size_t kMaxSplits = 64;

struct PreTokenizerParts {
  std::vector<SplitStep> steps;
  bool has_byte_level = false;
  bool add_prefix_space = false;
  std::optional<SplitStep> byte_level_split;
};

absl::StatusOr<Regex> CompileOniguruma(std::string_view pattern) {
  absl::StatusOr<std::string> translated = TranslateOniguruma(pattern);
  if (!translated.ok()) return translated.status();
  return Regex::Compile(*translated);
}

absl::StatusOr<SplitBehavior> ReadBehavior(const json& part, const std::string& where) {
  constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  absl::StatusOr<std::string> name = StringField(part, "behavior", where);
  if (!name.ok()) return name.status();
  for (const auto& [known, behavior] : kBehaviors) {
    if (*name == known) return behavior;
  }
  return Unsupported(where, absl::StrCat("behavior ", Shown(*name)),
                     "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

absl::StatusOr<SplitStep> ReadSplit(const json& part, const std::string& where) {
  absl::Status status = CheckFields(part, where, {"type", "pattern", "behavior", "invert"});
  if (!status.ok()) return status;
  absl::StatusOr<SplitBehavior> behavior = ReadBehavior(part, where);
  if (!behavior.ok()) return behavior.status();
  absl::StatusOr<bool> invert = BoolField(part, "invert", false, where);
  if (!invert.ok()) return invert.status();
  const json* pattern = Field(part, "pattern");
  if (pattern == nullptr) return Malformed(where, "no pattern");
  status = CheckFields(*pattern, where + ".pattern", {"Regex", "String"});
  if (!status.ok()) return status;
  const json* regex = Field(*pattern, "Regex");
  const json* literal = Field(*pattern, "String");
  const json* source = regex != nullptr ? regex : literal;
  if ((regex != nullptr) == (literal != nullptr) || !source->is_string()) {
    return Malformed(where + ".pattern", "needs one of Regex and String, with a string");
  }
  absl::StatusOr<Regex> compiled = regex != nullptr
                                       ? CompileOniguruma(regex->get<std::string>())
                                       : Regex::CompileLiteral(literal->get<std::string>());
  if (!compiled.ok()) return At(where + ".pattern", compiled.status());
  return SplitStep{*std::move(compiled), *behavior, *invert};
}

absl::StatusOr<SplitStep> ReadDigits(const json& part, const std::string& where) {
  absl::Status status = CheckFields(part, where, {"type", "individual_digits"});
  if (!status.ok()) return status;
  absl::StatusOr<bool> individual = BoolField(part, "individual_digits", false, where);
  if (!individual.ok()) return individual.status();
  absl::StatusOr<Regex> compiled = Regex::Compile("\\p{N}");
  if (!compiled.ok()) return compiled.status();
  return SplitStep{*std::move(compiled),
                   *individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous};
}

absl::Status CheckByteLevel(const json& part, const std::string& where) {
  absl::Status status =
      CheckFields(part, where, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  for (const char* name : {"add_prefix_space", "trim_offsets", "use_regex"}) {
    if (status.ok()) status = BoolField(part, name, false, where).status();
  }
  return status;
}

absl::Status ReadByteLevel(const json& part, const std::string& where, PreTokenizerParts* out) {
  absl::Status status = CheckByteLevel(part, where);
  if (!status.ok()) return status;
  out->has_byte_level = true;
  out->add_prefix_space = *BoolField(part, "add_prefix_space", true, where);
  if (!*BoolField(part, "use_regex", true, where)) return absl::OkStatus();
  absl::StatusOr<Regex> compiled = CompileOniguruma(kGpt2Pattern);
  if (!compiled.ok()) return compiled.status();
  out->byte_level_split = SplitStep{*std::move(compiled)};
  return absl::OkStatus();
}

absl::Status ReadPreTokenizerPart(const json& part, const std::string& where,
                                  PreTokenizerParts* out) {
  const std::string type = TypeOf(part);
  if (out->steps.size() >= kMaxSplits) {
    return Malformed(where, absl::StrCat("a part after ", kMaxSplits, " others"));
  }
  // What follows would see the byte-level alphabet in place of the text.
  if (out->has_byte_level) return Unsupported(where, "a part after ByteLevel", "ByteLevel last");
  if (type == "ByteLevel") return ReadByteLevel(part, where, out);
  if (type != "Split" && type != "Digits") {
    return UnsupportedType(part, where, "Split, Digits, ByteLevel, a Sequence of them");
  }
  absl::StatusOr<SplitStep> step =
      type == "Split" ? ReadSplit(part, where) : ReadDigits(part, where);
  if (!step.ok()) return step.status();
  out->steps.push_back(*std::move(step));
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const json& root, TokenizerParts* parts) {
  PreTokenizerParts read;
  if (const json* pre_tokenizer = Field(root, "pre_tokenizer")) {
    absl::Status status = ForEachPart(*pre_tokenizer, "pre_tokenizer", "pretokenizers",
                                      [&read](const json& part, const std::string& where) {
                                        return ReadPreTokenizerPart(part, where, &read);
                                      });
    if (!status.ok()) return status;
  }
  if (!read.has_byte_level) {
    return Unsupported("pre_tokenizer", "a vocabulary that is not byte-level",
                       "ByteLevel, or a Sequence that ends in it");
  }
  parts->pre_tokenizer.emplace(std::move(read.steps), read.add_prefix_space,
                               std::move(read.byte_level_split));
  return absl::OkStatus();
}

// Appends the ids that stand for a SpecialToken of a template.
absl::Status ReadTemplateToken(const json& special, const json& token, const std::string& where,
                               std::vector<int32_t>* ids) {
  absl::StatusOr<std::string> name = StringField(token, "id", where);
  if (!name.ok()) return name.status();
  const json* entry = Field(special, name->c_str());
  if (entry == nullptr) return Malformed(where, absl::StrCat(Shown(*name), " is not described"));
  absl::StatusOr<const json*> list = ArrayField(*entry, "ids", where);
  if (!list.ok()) return list.status();
  for (const json& value : **list) {
    absl::StatusOr<int32_t> id = TokenId(&value, where);
    if (!id.ok()) return id.status();
    ids->push_back(*id);
  }
  return absl::OkStatus();
}

// What a template puts before and behind one text; "pair" is for two texts, which nobody sends.
absl::Status ReadTemplate(const json& part, const std::string& where, TokenizerParts* parts) {
  absl::Status status = CheckFields(part, where, {"type", "single", "pair", "special_tokens"});
  if (!status.ok()) return status;
  absl::StatusOr<const json*> single = ArrayField(part, "single", where);
  if (!single.ok()) return single.status();
  const json* special = Field(part, "special_tokens");
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  bool seen_text = false;
  for (size_t i = 0; i < (*single)->size(); ++i) {
    const std::string at = Element(where, "single", i);
    const json& piece = (**single)[i];
    status = CheckFields(piece, at, {"SpecialToken", "Sequence"});
    if (!status.ok()) return status;
    if (const json* token = Field(piece, "SpecialToken")) {
      status = ReadTemplateToken(special != nullptr ? *special : json(), *token, at,
                                 seen_text ? &suffix : &prefix);
      if (!status.ok()) return status;
      continue;
    }
    const json* sequence = Field(piece, "Sequence");
    const json* id = sequence != nullptr ? Field(*sequence, "id") : nullptr;
    if (id == nullptr || *id != "A" || seen_text) {
      return Unsupported(at, "this piece", "SpecialToken, and Sequence A once");
    }
    seen_text = true;
  }
  if (!seen_text) return Unsupported(where, "a template without Sequence A", "Sequence A once");
  // A template after another one goes around what that one made.
  parts->prefix.insert(parts->prefix.begin(), prefix.begin(), prefix.end());
  parts->suffix.insert(parts->suffix.end(), suffix.begin(), suffix.end());
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const json& root, TokenizerParts* parts) {
  const json* post_processor = Field(root, "post_processor");
  if (post_processor == nullptr) return absl::OkStatus();
  return ForEachPart(*post_processor, "post_processor", "processors",
                     [parts](const json& part, const std::string& where) {
                       const std::string type = TypeOf(part);
                       if (type == "ByteLevel") return CheckByteLevel(part, where);  // offsets only
                       if (type == "TemplateProcessing") return ReadTemplate(part, where, parts);
                       return UnsupportedType(
                           part, where, "ByteLevel, TemplateProcessing, a Sequence of them, null");
                     });
}

absl::Status CheckDecoder(const json& root) {
  const json* decoder = Field(root, "decoder");
  int count = 0;
  if (decoder != nullptr) {
    absl::Status status = ForEachPart(*decoder, "decoder", "decoders",
                                      [&count](const json& part, const std::string& where) {
                                        if (TypeOf(part) != "ByteLevel") {
                                          return UnsupportedType(part, where, "ByteLevel");
                                        }
                                        ++count;
                                        return CheckByteLevel(part, where);
                                      });
    if (!status.ok()) return status;
  }
  if (count != 1) {
    return Unsupported("decoder", absl::StrCat(count, " decoders"), "ByteLevel, once");
  }
  return absl::OkStatus();
}

// Settings that only matter where the text holds what the vocabulary cannot spell.
bool CoversAllBytes(const BpeVocabulary& vocabulary) {
  for (int b = 0; b < 256; ++b) {
    if (!vocabulary.ids.Contains(ByteLevelCharacter(static_cast<uint8_t>(b)))) return false;
  }
  return true;
}

absl::Status ReadModel(TokenizerTree& tree, TokenizerParts* parts) {
  const json* model = Field(tree.root, "model");
  if (model == nullptr) return Malformed("model", "there is none");
  const std::string type = TypeOf(*model);
  // Old files do not name it: what has merges is BPE.
  if (type != "BPE" && !(type.empty() && tree.has_merges)) {
    return UnsupportedType(*model, "model", "BPE");
  }
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
  if ((*byte_fallback || !unk_token->empty()) && !CoversAllBytes(tree.vocabulary)) {
    return Unsupported("model", *byte_fallback ? "byte_fallback" : "unk_token",
                       "a vocabulary with all 256 bytes, which needs neither");
  }
  parts->vocabulary = std::move(tree.vocabulary);
  parts->vocabulary.ignore_merges = *ignore_merges;
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const json& root, TokenizerParts* parts) {
  const json* list = Field(root, "added_tokens");
  if (list == nullptr) return absl::OkStatus();
  if (!list->is_array()) return Malformed("added_tokens", "no array");
  for (size_t i = 0; i < list->size(); ++i) {
    const json& entry = (*list)[i];
    const std::string where = absl::StrCat("added_tokens[", i, "]");
    absl::Status status =
        CheckFields(entry, where,
                    {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    if (!status.ok()) return status;
    AddedToken token;
    absl::StatusOr<int32_t> id = TokenId(Field(entry, "id"), where + ".id");
    if (!id.ok()) return id.status();
    absl::StatusOr<std::string> content = StringField(entry, "content", where);
    if (!content.ok()) return content.status();
    token.id = *id;
    token.content = *std::move(content);
    const std::pair<const char*, bool*> flags[] = {{"single_word", &token.single_word},
                                                   {"lstrip", &token.lstrip},
                                                   {"rstrip", &token.rstrip},
                                                   {"special", &token.special},
                                                   {"normalized", &token.normalized}};
    for (const auto& [name, flag] : flags) {
      absl::StatusOr<bool> value = BoolField(entry, name, false, where);
      if (!value.ok()) return value.status();
      *flag = *value;
    }
    // One without content can be found nowhere; Hugging Face passes over it too.
    if (!token.content.empty()) parts->added_tokens.push_back(std::move(token));
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
        ReadPostProcessor(tree->root, &parts), CheckDecoder(tree->root)}) {
    if (!read.ok()) return read;
  }
  return parts;
}

}  // namespace sirocco
