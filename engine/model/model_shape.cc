#include "engine/model/model_shape.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

// Far above every model there is; products of two of them stay far below 2^63.
constexpr int32_t kMaxVocabulary = 1 << 22;
constexpr int32_t kMaxHidden = 1 << 17;
constexpr int32_t kMaxHeads = 4096;
constexpr int32_t kMaxHeadDim = 1024;

// Heads of queries, of keys and values, and their size.
absl::Status ReadHeads(const Settings& settings, const ShapeNames& names,
                       const ShapeDefaults& defaults, ModelDescriptor& model) {
  const absl::StatusOr<int32_t> heads = settings.Int(names.heads, 1, kMaxHeads);
  if (!heads.ok()) return heads.status();
  model.heads = *heads;
  const absl::StatusOr<int32_t> kv_heads =
      settings.Int(names.kv_heads, 1, *heads, defaults.kv_heads.value_or(*heads));
  if (!kv_heads.ok()) return kv_heads.status();
  model.kv_heads = *kv_heads;
  if (*heads % *kv_heads != 0) {
    return settings.Invalid(names.kv_heads,
                            absl::StrCat("is ", *kv_heads, ", which does not divide ",
                                         std::string(names.heads), " ", *heads));
  }
  const bool given = settings.Has(names.head_dim) || defaults.head_dim;
  if (!given && model.hidden_size % *heads != 0) {
    return settings.Invalid(names.heads,
                            absl::StrCat("is ", *heads, ", which does not divide ",
                                         std::string(names.hidden_size), " ", model.hidden_size));
  }
  const absl::StatusOr<int32_t> head_dim = settings.Int(
      names.head_dim, 2, kMaxHeadDim, defaults.head_dim.value_or(model.hidden_size / *heads));
  if (!head_dim.ok()) return head_dim.status();
  model.head_dim = *head_dim;
  if (*head_dim % 2 != 0 || *head_dim < 2 || *head_dim > kMaxHeadDim) {
    return settings.Invalid(
        names.head_dim,
        absl::StrCat("is ", *head_dim, "; allowed are even numbers from 2 to ", kMaxHeadDim));
  }
  model.attention_scale = AttentionScale(*head_dim);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelDescriptor> ReadShape(const Settings& settings, const ShapeNames& names,
                                          const ShapeDefaults& defaults, const Family& family) {
  ModelDescriptor model;
  model.architecture = std::string(family.name);
  int32_t layers = 0;
  const struct {
    std::string_view name;
    int32_t most;
    std::optional<int32_t> absent;
    int32_t* value;
  } sizes[] = {
      {names.vocab_size, kMaxVocabulary, defaults.vocab_size, &model.vocab_size},
      {names.hidden_size, kMaxHidden, std::nullopt, &model.hidden_size},
      {names.intermediate_size, kMaxIntermediate, std::nullopt, &model.intermediate_size},
      {names.layers, kMaxLayers, std::nullopt, &layers},
      {names.max_position, kMaxPosition, defaults.max_position, &model.max_position},
  };
  for (const auto& size : sizes) {
    const absl::StatusOr<int32_t> value = settings.Int(size.name, 1, size.most, size.absent);
    if (!value.ok()) return value.status();
    *size.value = *value;
  }
  if (absl::Status status = ReadHeads(settings, names, defaults, model); !status.ok())
    return status;
  const absl::StatusOr<double> epsilon =
      settings.Positive(names.norm_epsilon, 1, defaults.norm_epsilon);
  if (!epsilon.ok()) return epsilon.status();
  model.norm_epsilon = static_cast<float>(*epsilon);
  model.pre_norms = family.pre_norms;
  model.head_norms = family.head_norms;
  model.whole_norms = family.whole_norms;
  model.post_norms = family.post_norms;
  if (family.scaled_embedding) {
    model.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(model.hidden_size)));
  }
  model.layers.resize(layers);
  return model;
}

void SetAttention(const std::vector<bool>& windowed, int32_t window, RotaryDescriptor full,
                  RotaryDescriptor windowed_rotary, ModelDescriptor& model) {
  const bool some = std::find(windowed.begin(), windowed.end(), true) != windowed.end();
  const bool all = std::find(windowed.begin(), windowed.end(), false) == windowed.end();
  const bool alike = full == windowed_rotary;
  if (!all) {
    model.groups.push_back({.window = 0});
    model.rotaries.push_back(std::move(full));
  }
  if (some) {
    model.groups.push_back({.window = window});
    if (all || !alike) model.rotaries.push_back(std::move(windowed_rotary));
  }
  const int32_t last_group = static_cast<int32_t>(model.groups.size()) - 1;
  const int32_t last_rotary = static_cast<int32_t>(model.rotaries.size()) - 1;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    model.layers[i].group = windowed[i] ? last_group : 0;
    model.layers[i].rotary = windowed[i] ? last_rotary : 0;
  }
}

void LeaveUnturned(const std::vector<bool>& unturned, ModelDescriptor& model) {
  if (std::find(unturned.begin(), unturned.end(), true) == unturned.end()) return;
  // All elements turn, by nothing: no kernel needs to know.
  const int32_t none = static_cast<int32_t>(model.rotaries.size());
  model.rotaries.push_back(
      {.inverse_frequencies = std::vector<float>(static_cast<size_t>(model.head_dim) / 2, 0.0f)});
  for (size_t i = 0; i < model.layers.size(); ++i) {
    if (unturned[i]) model.layers[i].rotary = none;
  }
}

std::vector<bool> UnturnedByInterval(size_t layers, int32_t interval) {
  std::vector<bool> unturned;
  for (size_t i = 0; i < layers; ++i) unturned.push_back((i + 1) % interval == 0);
  return unturned;
}

absl::Status SetExperts(const Settings& settings, std::string_view name, int32_t experts,
                        int32_t experts_a_row, bool renormalise, ModelDescriptor& model) {
  const int64_t layers = static_cast<int64_t>(model.layers.size());
  if (experts * layers > kMaxExpertsInAll) {
    return settings.Invalid(
        name, absl::StrCat("is ", experts, " in each of ", layers, " layers; allowed are ",
                           kMaxExpertsInAll, " in all"));
  }
  model.experts = experts;
  model.experts_a_row = experts_a_row;
  model.renormalise = renormalise;
  return absl::OkStatus();
}

// The stream is kept divided by the residual multiplier m: what a block adds then needs no factor.
// The stream is read through norms alone, and norm(x / m) with epsilon / m^2 is norm(x) with
// epsilon.
void SetMultipliers(const Multipliers& multipliers, ModelDescriptor& model) {
  const double m = multipliers.residual;
  model.embedding_scale = static_cast<float>(model.embedding_scale * multipliers.embedding / m);
  model.norm_epsilon = static_cast<float>(model.norm_epsilon / (m * m));
  model.logit_scale = static_cast<float>(multipliers.logits);
}

std::vector<bool> WindowedByPattern(size_t layers, int32_t pattern) {
  std::vector<bool> windowed;
  for (size_t i = 0; i < layers; ++i) windowed.push_back((i + 1) % pattern != 0);
  return windowed;
}

float AttentionScale(double scalar) { return static_cast<float>(1 / std::sqrt(scalar)); }

}  // namespace sirocco
