#include "engine/model/model_shape.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

// Far above every model there is; products of two of them stay far below 2^63.
constexpr int32_t kMaxVocabulary = 1 << 22;
constexpr int32_t kMaxHidden = 1 << 17;
constexpr int32_t kMaxIntermediate = 1 << 20;
constexpr int32_t kMaxLayers = 1024;
constexpr int32_t kMaxHeads = 4096;
constexpr int32_t kMaxHeadDim = 1024;
constexpr int32_t kMaxPosition = 1 << 27;

// Heads of queries, of keys and values, and their size.
absl::Status ReadHeads(const Settings& settings, const ShapeNames& names, ModelDescriptor& model) {
  const absl::StatusOr<int32_t> heads = settings.Int(names.heads, 1, kMaxHeads);
  if (!heads.ok()) return heads.status();
  model.heads = *heads;
  const absl::StatusOr<int32_t> kv_heads = settings.Int(names.kv_heads, 1, *heads, *heads);
  if (!kv_heads.ok()) return kv_heads.status();
  model.kv_heads = *kv_heads;
  if (*heads % *kv_heads != 0) {
    return settings.Invalid(names.kv_heads,
                            absl::StrCat("is ", *kv_heads, ", which does not divide ",
                                         std::string(names.heads), " ", *heads));
  }
  if (!settings.Has(names.head_dim) && model.hidden_size % *heads != 0) {
    return settings.Invalid(names.heads,
                            absl::StrCat("is ", *heads, ", which does not divide ",
                                         std::string(names.hidden_size), " ", model.hidden_size));
  }
  const absl::StatusOr<int32_t> head_dim =
      settings.Int(names.head_dim, 2, kMaxHeadDim, model.hidden_size / *heads);
  if (!head_dim.ok()) return head_dim.status();
  model.head_dim = *head_dim;
  if (*head_dim % 2 != 0 || *head_dim < 2 || *head_dim > kMaxHeadDim) {
    return settings.Invalid(
        names.head_dim,
        absl::StrCat("is ", *head_dim, "; allowed are even numbers from 2 to ", kMaxHeadDim));
  }
  model.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(*head_dim)));
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
  if (absl::Status status = ReadHeads(settings, names, model); !status.ok()) return status;
  const absl::StatusOr<double> epsilon =
      settings.Positive(names.norm_epsilon, 1, defaults.norm_epsilon);
  if (!epsilon.ok()) return epsilon.status();
  model.norm_epsilon = static_cast<float>(*epsilon);
  model.groups = {LayerGroup{}};
  model.layers.resize(layers);
  return model;
}

}  // namespace sirocco
