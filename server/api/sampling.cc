#include "server/api/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"
#include "server/api/prompt.h"

namespace sirocco {
namespace {

constexpr float kMaxTemperature = 100;
constexpr float kMaxPenalty = 100;
constexpr float kMaxBias = 100;

// A field's value and where it came from.
template <typename T>
struct Value {
  T value;
  bool given;  // by the request

  std::string Text() const {
    return absl::StrCat(value, given ? "" : " (the model's generation_config.json)");
  }
};

template <typename T>
Value<T> Resolve(bool given, T value, const std::optional<T>& model_default, T off) {
  return given ? Value<T>{value, true} : Value<T>{model_default.value_or(off), false};
}

std::string Path(std::string_view name) { return "sampling." + std::string(name); }

absl::Status CheckPenalty(std::string_view name, float value) {
  if (std::abs(value) <= kMaxPenalty) return absl::OkStatus();
  return InvalidField(Path(name), absl::StrCat(value), "-100 ... 100");
}

// Comparisons are written so that NaN fails them.
absl::Status ResolveFilters(const v1::SamplingParams& given, const GenerationDefaults& defaults,
                            int32_t vocab_size, SamplingParams& out) {
  const auto top_k = Resolve<int32_t>(given.has_top_k(), given.top_k(), defaults.top_k, 0);
  if (top_k.value < -1) {
    return InvalidField("sampling.top_k", top_k.Text(), "at least -1 (-1 and 0: off)");
  }
  const auto top_p = Resolve<float>(given.has_top_p(), given.top_p(), defaults.top_p, 1);
  if (!(top_p.value > 0 && top_p.value <= 1)) {
    return InvalidField("sampling.top_p", top_p.Text(), "above 0, at most 1");
  }
  const auto min_p = Resolve<float>(given.has_min_p(), given.min_p(), defaults.min_p, 0);
  if (!(min_p.value >= 0 && min_p.value <= 1)) {
    return InvalidField("sampling.min_p", min_p.Text(), "0 ... 1");
  }
  // All of the vocabulary is no filter.
  out.top_k = top_k.value >= vocab_size ? 0 : std::max(top_k.value, 0);
  out.top_p = top_p.value;
  out.min_p = min_p.value;
  return absl::OkStatus();
}

absl::Status ResolveTemperature(const v1::SamplingParams& given, const GenerationDefaults& defaults,
                                SamplingParams& out) {
  const bool model_samples = defaults.do_sample.value_or(false);
  const auto temperature = Resolve<float>(
      given.has_temperature(), given.temperature(),
      model_samples ? std::optional<float>(defaults.temperature.value_or(1)) : std::nullopt, 0);
  if (!(temperature.value >= 0 && temperature.value <= kMaxTemperature)) {
    return InvalidField("sampling.temperature", temperature.Text(), "0 ... 100");
  }
  out.temperature = temperature.value;
  return absl::OkStatus();
}

absl::Status ResolvePenalties(const v1::SamplingParams& given, const ModelFacts& model,
                              SamplingParams& out) {
  const GenerationDefaults& defaults = model.generation;
  const auto repetition = Resolve<float>(given.has_repetition_penalty(), given.repetition_penalty(),
                                         defaults.repetition_penalty, 1);
  if (!(repetition.value > 0 && std::isfinite(repetition.value))) {
    return InvalidField("sampling.repetition_penalty", repetition.Text(), "finite, above 0");
  }
  out.repetition_penalty = repetition.value;
  out.presence_penalty = given.presence_penalty();
  out.frequency_penalty = given.frequency_penalty();
  if (auto status = CheckPenalty("presence_penalty", out.presence_penalty); !status.ok()) {
    return status;
  }
  if (auto status = CheckPenalty("frequency_penalty", out.frequency_penalty); !status.ok()) {
    return status;
  }
  const int64_t ngram = given.has_no_repeat_ngram_size()
                            ? int64_t{given.no_repeat_ngram_size()}
                            : int64_t{defaults.no_repeat_ngram_size.value_or(0)};
  // One that is longer than any sequence can never repeat.
  out.no_repeat_ngram_size =
      ngram > 0 && ngram <= model.max_length ? static_cast<int32_t>(ngram) : 0;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ToIdSet(std::string_view name,
                                             const google::protobuf::RepeatedField<uint32_t>& ids,
                                             const ModelFacts& model) {
  auto set = ToTokenIds(Path(name), ids, model);
  if (!set.ok()) return set.status();
  std::sort(set->begin(), set->end());
  set->erase(std::unique(set->begin(), set->end()), set->end());
  return set;
}

absl::Status ResolveIds(const v1::SamplingParams& given, const ModelFacts& model,
                        SamplingParams& out) {
  for (const auto& [id, bias] : given.logit_bias()) {
    if (id >= static_cast<uint32_t>(model.vocab_size)) {
      return InvalidField("sampling.logit_bias", absl::StrCat("keyed by ", id),
                          absl::StrCat("0 ... ", model.vocab_size - 1));
    }
    if (!(std::abs(bias) <= kMaxBias)) {
      return InvalidField(absl::StrCat("sampling.logit_bias[", id, "]"), absl::StrCat(bias),
                          "-100 ... 100");
    }
    out.logit_bias.emplace_back(static_cast<int32_t>(id), bias);
  }
  std::sort(out.logit_bias.begin(), out.logit_bias.end());
  auto allowed = ToIdSet("allowed_token_ids", given.allowed_token_ids(), model);
  if (!allowed.ok()) return allowed.status();
  auto banned = ToIdSet("banned_token_ids", given.banned_token_ids(), model);
  if (!banned.ok()) return banned.status();
  const bool left = allowed->empty() ? static_cast<int64_t>(banned->size()) < model.vocab_size
                                     : !std::includes(banned->begin(), banned->end(),
                                                      allowed->begin(), allowed->end());
  if (!left) {
    return InvalidField("sampling.banned_token_ids",
                        "bans all that may be chosen; allowed: at least one id of "
                        "allowed_token_ids (or of the vocabulary) that is not banned");
  }
  out.allowed_token_ids = *std::move(allowed);
  out.banned_token_ids = *std::move(banned);
  return absl::OkStatus();
}

uint64_t DrawSeed() {
  thread_local std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

}  // namespace

absl::StatusOr<SamplingParams> ToSamplingParams(const v1::SamplingParams& given,
                                                const ModelFacts& model) {
  SamplingParams out;
  absl::Status status = ResolveTemperature(given, model.generation, out);
  if (status.ok()) status = ResolveFilters(given, model.generation, model.vocab_size, out);
  if (status.ok()) status = ResolvePenalties(given, model, out);
  if (status.ok()) status = ResolveIds(given, model, out);
  if (!status.ok()) return status;
  if (out.temperature == 0) {
    out.temperature = 0;  // not -0
    out.top_k = 0;
    out.top_p = 1;
    out.min_p = 0;
  }
  out.seed = given.has_seed() ? given.seed() : DrawSeed();
  return out;
}

}  // namespace sirocco
