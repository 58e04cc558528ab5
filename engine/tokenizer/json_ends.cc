// Post-processors and decoders: what is put around ids, and how they become text again.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/json_parts.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

using nlohmann::json;

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

// A Sequence of decoders, in the one order that all in use have: what each does to tokens is then
// known when the vocabulary is read, and to the text when it begins.
class DecoderReader {
 public:
  explicit DecoderReader(DecoderParts* out) : out_(out) { out_->byte_level = false; }

  absl::Status Read(const json& part, const std::string& where) {
    const std::string type = TypeOf(part);
    const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes),
                                     [&type](const Type& known) { return known.name == type; });
    if (found == std::end(kTypes)) return UnsupportedType(part, where, kSupported);
    if (found->place < place_ || (found->place == place_ && !found->repeats) ||
        (found->follows >= 0 && found->follows != place_)) {
      return Unsupported(where, absl::StrCat("a decoder ", type, " here"), kSupported);
    }
    place_ = found->place;
    return (this->*found->read)(part, where);
  }

  absl::Status Finish() const {
    if (place_ < 0) return Unsupported("decoder", "none", kSupported);
    return absl::OkStatus();
  }

 private:
  static constexpr char kSupported[] =
      "ByteLevel alone, or Replace or Metaspace, ByteFallback, Fuse, Strip in this order";
  struct Type {
    std::string_view name;
    int place;     // in the order
    bool repeats;  // may come again
    int follows;   // only right after this place; -1: after any before its own
    absl::Status (DecoderReader::*read)(const json&, const std::string&);
  };
  // Nothing follows ByteLevel.
  static const Type kTypes[6];

  absl::Status ReadReplace(const json& part, const std::string& where) {
    absl::Status status = CheckFields(part, where, {"type", "pattern", "content"});
    if (!status.ok()) return status;
    const json* pattern = Field(part, "pattern");
    const json* literal = pattern != nullptr ? Field(*pattern, "String") : nullptr;
    if (literal == nullptr || !literal->is_string()) {
      return Unsupported(where + ".pattern", "this", "String");
    }
    const std::string from = literal->get<std::string>();
    absl::StatusOr<std::string> to = StringField(part, "content", where);
    if (!to.ok()) return to.status();
    if (from.empty() || to->size() > from.size()) {
      return Unsupported(where, absl::StrCat("content ", Shown(*to), " for ", Shown(from)),
                         "content no longer than the pattern, which is not empty");
    }
    out_->replacements.emplace_back(from, *std::move(to));
    return absl::OkStatus();
  }

  absl::Status ReadMetaspace(const json& part, const std::string& where) {
    absl::StatusOr<MetaspaceSettings> settings = ReadMetaspaceSettings(part, where);
    if (!settings.ok()) return settings.status();
    out_->replacements.emplace_back(settings->mark, " ");
    out_->rules.bare_first_token = settings->prepend_scheme != "never";
    return absl::OkStatus();
  }

  absl::Status ReadByteFallback(const json& part, const std::string& where) {
    out_->byte_fallback = true;
    out_->rules.replace_each_byte = true;
    return CheckFields(part, where, {"type"});
  }

  absl::Status ReadFuse(const json& part, const std::string& where) {
    return CheckFields(part, where, {"type"});
  }

  absl::Status ReadStrip(const json& part, const std::string& where) {
    absl::Status status = CheckFields(part, where, {"type", "content", "start", "stop"});
    if (!status.ok()) return status;
    absl::StatusOr<std::string> content = StringField(part, "content", where);
    if (!content.ok()) return content.status();
    const json* start = Field(part, "start");
    const json* stop = Field(part, "stop");
    const bool none_at_end = stop == nullptr || *stop == 0;
    size_t end = 0;
    if (!content->empty()) ReadUtf8(*content, &end);
    if (!none_at_end || start == nullptr || !start->is_number_integer() || *start < 0 ||
        *start > kMaxStrip || content->empty() || end != content->size()) {
      return Unsupported(
          where, "this",
          absl::StrCat("content of one character, start of 0 to ", kMaxStrip, ", stop of 0"));
    }
    out_->rules.strip = *std::move(content);
    out_->rules.strip_count = start->get<int>();
    return absl::OkStatus();
  }

  absl::Status ReadByteLevel(const json& part, const std::string& where) {
    out_->byte_level = true;
    return CheckByteLevel(part, where);
  }

  static constexpr int kMaxStrip = 1000;
  DecoderParts* out_;
  int place_ = -1;
};

const DecoderReader::Type DecoderReader::kTypes[6] = {
    {"Replace", 0, true, -1, &DecoderReader::ReadReplace},
    {"Metaspace", 1, false, -1, &DecoderReader::ReadMetaspace},
    {"ByteFallback", 2, false, -1, &DecoderReader::ReadByteFallback},
    {"Fuse", 3, false, -1, &DecoderReader::ReadFuse},
    {"Strip", 4, false, 3, &DecoderReader::ReadStrip},
    {"ByteLevel", 5, false, -1, &DecoderReader::ReadByteLevel}};

}  // namespace

absl::StatusOr<MetaspaceSettings> ReadMetaspaceSettings(const json& part,
                                                        const std::string& where) {
  absl::Status status = CheckFields(
      part, where,
      {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  if (!status.ok()) return status;
  absl::StatusOr<std::string> mark = StringField(part, "replacement", where);
  if (!mark.ok()) return mark.status();
  absl::StatusOr<std::string> scheme = StringField(part, "prepend_scheme", where);
  if (!scheme.ok()) return scheme.status();
  // Files of before there were schemes say whether.
  absl::StatusOr<bool> add_prefix = BoolField(part, "add_prefix_space", true, where);
  if (!add_prefix.ok()) return add_prefix.status();
  absl::StatusOr<bool> split = BoolField(part, "split", true, where);
  if (!split.ok()) return split.status();
  size_t end = 0;
  if (!mark->empty()) ReadUtf8(*mark, &end);
  if (mark->empty() || end != mark->size()) {
    return Malformed(where, absl::StrCat("replacement ", Shown(*mark), " is not one character"));
  }
  if (scheme->empty()) *scheme = *add_prefix ? "always" : "never";
  return MetaspaceSettings{*std::move(mark), *std::move(scheme), *split};
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

absl::Status ReadDecoder(const json& root, TokenizerParts* parts) {
  DecoderReader reader(&parts->decoder);
  if (const json* decoder = Field(root, "decoder")) {
    absl::Status status = ForEachPart(
        *decoder, "decoder", "decoders",
        [&reader](const json& part, const std::string& where) { return reader.Read(part, where); });
    if (!status.ok()) return status;
  }
  absl::Status status = reader.Finish();
  if (!status.ok()) return status;
  if (parts->decoder.byte_level == parts->vocabulary.byte_level) return status;
  return Unsupported("decoder",
                     parts->decoder.byte_level ? "ByteLevel without a pre-tokenizer ByteLevel"
                                               : "another than ByteLevel with such a pre-tokenizer",
                     "ByteLevel as both, or as neither");
}

}  // namespace sirocco
