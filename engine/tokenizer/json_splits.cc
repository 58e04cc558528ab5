// Normalisers and pre-tokenizers: what happens to text before the model sees it.
#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/json_parts.h"

namespace sirocco {
namespace {

using nlohmann::json;
using Kind = NormalizerStep::Kind;

absl::StatusOr<NormalizerStep> ReadStrip(const json& part, const std::string& where) {
  absl::Status status = CheckFields(part, where, {"type", "strip_left", "strip_right"});
  if (!status.ok()) return status;
  absl::StatusOr<bool> left = BoolField(part, "strip_left", false, where);
  if (!left.ok()) return left.status();
  absl::StatusOr<bool> right = BoolField(part, "strip_right", false, where);
  if (!right.ok()) return right.status();
  return NormalizerStep{.kind = Kind::kStrip, .left = *left, .right = *right};
}

absl::StatusOr<NormalizerStep> ReadWriting(const json& part, const std::string& where, Kind kind) {
  const bool replaces = kind == Kind::kReplace;
  absl::Status status = replaces ? CheckFields(part, where, {"type", "pattern", "content"})
                                 : CheckFields(part, where, {"type", "prepend"});
  if (!status.ok()) return status;
  absl::StatusOr<std::string> text = WrittenField(part, replaces ? "content" : "prepend", where);
  if (!text.ok()) return text.status();
  NormalizerStep step{.kind = kind, .text = *std::move(text)};
  if (!replaces) return step;
  absl::StatusOr<Regex> pattern = ReadPattern(part, where);
  if (!pattern.ok()) return pattern.status();
  step.pattern = *std::move(pattern);
  return step;
}

absl::StatusOr<NormalizerStep> ReadPrecompiled(const json& part, const std::string& where) {
  absl::Status status = CheckFields(part, where, {"type", "precompiled_charsmap"});
  if (!status.ok()) return status;
  absl::StatusOr<std::string> encoded = StringField(part, "precompiled_charsmap", where);
  if (!encoded.ok()) return encoded.status();
  std::string bytes;
  if (!absl::Base64Unescape(*encoded, &bytes)) {
    return Malformed(where, "precompiled_charsmap is not in base 64");
  }
  absl::StatusOr<std::shared_ptr<const Charsmap>> charsmap = Charsmap::Parse(bytes);
  if (!charsmap.ok()) return At(where, charsmap.status());
  return NormalizerStep{.kind = Kind::kPrecompiled, .charsmap = *std::move(charsmap)};
}

absl::StatusOr<NormalizerStep> ReadNormalizerPart(const json& part, const std::string& where) {
  constexpr std::pair<std::string_view, Kind> kTypes[] = {{"NFC", Kind::kNfc},
                                                          {"NFD", Kind::kNfd},
                                                          {"NFKC", Kind::kNfkc},
                                                          {"NFKD", Kind::kNfkd},
                                                          {"Lowercase", Kind::kLowercase},
                                                          {"StripAccents", Kind::kStripAccents},
                                                          {"Nmt", Kind::kNmt},
                                                          {"Precompiled", Kind::kPrecompiled},
                                                          {"Strip", Kind::kStrip},
                                                          {"Prepend", Kind::kPrepend},
                                                          {"Replace", Kind::kReplace}};
  const std::string type = TypeOf(part);
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&type](const auto& known) { return known.first == type; });
  if (found == std::end(kTypes)) {
    return UnsupportedType(
        part, where,
        "NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Nmt, Precompiled, Strip, "
        "Prepend, Replace, a Sequence of them, null");
  }
  const Kind kind = found->second;
  if (kind == Kind::kStrip) return ReadStrip(part, where);
  if (kind == Kind::kPrecompiled) return ReadPrecompiled(part, where);
  if (kind == Kind::kPrepend || kind == Kind::kReplace) return ReadWriting(part, where, kind);
  absl::Status status = CheckFields(part, where, {"type"});
  if (!status.ok()) return status;
  return NormalizerStep{.kind = kind};
}

struct PreTokenizerParts {
  std::vector<PreTokenizerStep> steps;
  bool has_metaspace = false;
  bool has_byte_level = false;
  bool add_prefix_space = false;
  std::optional<SplitStep> byte_level_split;
};

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
  absl::StatusOr<Regex> pattern = ReadPattern(part, where);
  if (!pattern.ok()) return pattern.status();
  return SplitStep{*std::move(pattern), *behavior, *invert};
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

absl::StatusOr<SplitStep> ReadWhitespaceSplit(const json& part, const std::string& where) {
  absl::Status status = CheckFields(part, where, {"type"});
  if (!status.ok()) return status;
  absl::StatusOr<Regex> compiled = CompileOniguruma("\\s+");
  if (!compiled.ok()) return compiled.status();
  return SplitStep{*std::move(compiled), SplitBehavior::kRemoved};
}

absl::StatusOr<MetaspaceStep> ReadMetaspace(const json& part, const std::string& where) {
  using Prefix = MetaspaceStep::Prefix;
  constexpr std::pair<std::string_view, Prefix> kSchemes[] = {
      {"always", Prefix::kAlways}, {"first", Prefix::kFirst}, {"never", Prefix::kNever}};
  absl::StatusOr<MetaspaceSettings> settings = ReadMetaspaceSettings(part, where);
  if (!settings.ok()) return settings.status();
  for (const auto& [name, prefix] : kSchemes) {
    if (settings->prepend_scheme != name) continue;
    MetaspaceStep step{.mark = settings->mark, .prefix = prefix, .split = std::nullopt};
    if (!settings->split) return step;
    absl::StatusOr<Regex> split = Regex::CompileLiteral(step.mark);
    if (!split.ok()) return At(where, split.status());
    step.split = *std::move(split);
    return step;
  }
  return Unsupported(where, absl::StrCat("prepend_scheme ", Shown(settings->prepend_scheme)),
                     "always, first, never");
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

template <typename Step>
absl::Status Add(absl::StatusOr<Step> step, PreTokenizerParts* out) {
  if (!step.ok()) return step.status();
  out->steps.push_back(*std::move(step));
  return absl::OkStatus();
}

absl::Status ReadPreTokenizerPart(const json& part, const std::string& where,
                                  PreTokenizerParts* out) {
  const std::string type = TypeOf(part);
  // What follows would see the byte-level alphabet in place of the text.
  if (out->has_byte_level) return Unsupported(where, "a part after ByteLevel", "ByteLevel last");
  if (type == "ByteLevel") return ReadByteLevel(part, where, out);
  if (type == "Split") return Add(ReadSplit(part, where), out);
  if (type == "Digits") return Add(ReadDigits(part, where), out);
  if (type == "WhitespaceSplit") return Add(ReadWhitespaceSplit(part, where), out);
  if (type != "Metaspace") {
    return UnsupportedType(part, where,
                           "Split, Digits, WhitespaceSplit, Metaspace, ByteLevel, a Sequence of "
                           "them, null");
  }
  if (out->has_metaspace) return Unsupported(where, "a second Metaspace", "Metaspace once");
  out->has_metaspace = true;
  return Add(ReadMetaspace(part, where), out);
}

}  // namespace

absl::Status ReadNormalizer(const json& root, TokenizerParts* parts) {
  const json* normalizer = Field(root, "normalizer");
  if (normalizer == nullptr) return absl::OkStatus();
  std::vector<NormalizerStep> steps;
  absl::Status status = ForEachPart(*normalizer, "normalizer", "normalizers",
                                    [&steps](const json& part, const std::string& where) {
                                      absl::StatusOr<NormalizerStep> step =
                                          ReadNormalizerPart(part, where);
                                      if (!step.ok()) return step.status();
                                      steps.push_back(*std::move(step));
                                      return absl::OkStatus();
                                    });
  parts->normalizer = Normalizer(std::move(steps));
  return status;
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
  parts->vocabulary.byte_level = read.has_byte_level;
  parts->pre_tokenizer =
      PreTokenizer(std::move(read.steps), read.add_prefix_space, std::move(read.byte_level_split));
  return absl::OkStatus();
}

}  // namespace sirocco
