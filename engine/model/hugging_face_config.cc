#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/families.h"
#include "engine/model/file_error.h"
#include "engine/model/hugging_face.h"
#include "engine/model/hugging_face_rope.h"
#include "engine/model/json_file.h"
#include "engine/model/model_shape.h"
#include "engine/model/settings.h"
#include "kernels/limits.h"

namespace sirocco {
namespace {

using nlohmann::json;

constexpr const char* kWindow = "sliding_window";
constexpr double kMaxMultiplier = 1e6;

constexpr ShapeNames kNames = {
    .vocab_size = "vocab_size",
    .hidden_size = "hidden_size",
    .intermediate_size = "intermediate_size",
    .layers = "num_hidden_layers",
    .heads = "num_attention_heads",
    .kv_heads = "num_key_value_heads",
    .head_dim = "head_dim",
    .max_position = "max_position_embeddings",
    .norm_epsilon = "rms_norm_eps",
};

absl::StatusOr<bool> HasPart(const Settings& settings, const OptionalPart& part) {
  if (part.option.empty()) return part.otherwise;
  return settings.Bool(part.option, part.otherwise);
}

// `layer_types`, where the file has it: by layer, whether its attention has a window.
absl::StatusOr<std::optional<std::vector<bool>>> ReadLayerTypes(const json& config,
                                                                const std::string& path,
                                                                const Family& family,
                                                                size_t layers) {
  const json* types = FindValue(config, "layer_types");
  if (types == nullptr) return std::nullopt;
  if (!types->is_array() || types->size() != layers) {
    return InvalidFile(path, absl::StrCat("layer_types is no list of ", layers, " strings"));
  }
  const bool windows = family.windows.layers != WindowedLayers::kNone;
  std::vector<bool> windowed;
  for (const json& type : *types) {
    windowed.push_back(type == "sliding_attention");
    if (type == "full_attention" || (windows && windowed.back())) continue;
    return UnsupportedFile(
        path,
        absl::StrCat(
            "layer_types has ",
            type.is_string() ? Shown(type.get_ref<const std::string&>()) : std::string("no string"),
            "; supported is full_attention", windows ? " and sliding_attention" : ""));
  }
  return windowed;
}

// Where the file does not name each layer's type: the last of every `pattern` layers has full
// attention. transformers 4 wrote the pattern with and without the underscore.
absl::StatusOr<int32_t> ReadPattern(const Settings& settings, const Family& family) {
  constexpr const char* kName = "sliding_window_pattern";
  constexpr const char* kOther = "_sliding_window_pattern";
  const absl::StatusOr<int32_t> other = settings.Int(kOther, 1, kMaxLayers, family.windows.pattern);
  if (!other.ok()) return other.status();
  const absl::StatusOr<int32_t> pattern = settings.Int(kName, 1, kMaxLayers, *other);
  if (pattern.ok() && settings.Has(kOther) && *pattern != *other) {
    return settings.Invalid(kName, absl::StrCat("is ", *pattern, ", but ", kOther, " is ", *other));
  }
  return pattern;
}

// A number above 0; 0 where it is null.
absl::StatusOr<double> NumberOrNone(const json& config, const Settings& settings,
                                    std::string_view name, double absent) {
  const auto found = config.find(std::string(name));
  if (found != config.end() && found->is_null()) return 0.0;
  return settings.Positive(name, kMaxMultiplier, absent);
}

// Which layers have a window.
absl::StatusOr<std::vector<bool>> ReadWindowed(const json& config, const std::string& path,
                                               const Family& family, size_t layers) {
  const JsonSettings settings(config, path);
  absl::StatusOr<std::optional<std::vector<bool>>> types =
      ReadLayerTypes(config, path, family, layers);
  if (!types.ok()) return types.status();
  if (*types) return **std::move(types);
  switch (family.windows.layers) {
    case WindowedLayers::kNone:
      break;
    case WindowedLayers::kAll: {
      const bool none =
          config.contains(kWindow) ? config.at(kWindow).is_null() : family.windows.window == 0;
      return std::vector<bool>(layers, !none);
    }
    case WindowedLayers::kByPattern: {
      const absl::StatusOr<int32_t> pattern = ReadPattern(settings, family);
      if (!pattern.ok()) return pattern.status();
      return WindowedByPattern(layers, *pattern);
    }
  }
  return std::vector<bool>(layers, false);
}

// Which layers do not turn their heads: a list of numbers, 1 where they do.
absl::StatusOr<std::vector<bool>> ReadUnturned(const json& config, const std::string& path,
                                               const Family& family, size_t layers) {
  const JsonSettings settings(config, path);
  const json* list = FindValue(config, "no_rope_layers");
  if (list == nullptr) {
    const absl::StatusOr<int32_t> interval =
        settings.Int("no_rope_layer_interval", 1, kMaxLayers, family.unturned_interval);
    if (!interval.ok()) return interval.status();
    return UnturnedByInterval(layers, *interval);
  }
  std::vector<bool> unturned;
  for (const json& turned : list->is_array() ? *list : json::array()) {
    const std::optional<int64_t> value = JsonInt(turned);
    if (value != 0 && value != 1) break;
    unturned.push_back(value == 0);
  }
  if (unturned.size() != layers || list->size() != layers) {
    return settings.Invalid("no_rope_layers", absl::StrCat("is no list of ", layers, " 0 and 1"));
  }
  return unturned;
}

// Which layers have a window, its size, and the rotary embeddings.
absl::Status ReadAttention(const json& config, const std::string& path, const Family& family,
                           ModelDescriptor& model) {
  const JsonSettings settings(config, path);
  const size_t layers = model.layers.size();
  const absl::StatusOr<std::vector<bool>> windowed = ReadWindowed(config, path, family, layers);
  if (!windowed.ok()) return windowed.status();
  int32_t window = 0;
  if (std::find(windowed->begin(), windowed->end(), true) != windowed->end()) {
    if (config.contains(kWindow) && config.at(kWindow).is_null()) {
      return settings.Invalid(kWindow, "is null, but there are layers with sliding_attention");
    }
    std::optional<int32_t> absent;
    if (family.windows.window > 0) absent = family.windows.window;
    const absl::StatusOr<int32_t> size = settings.Int(kWindow, 1, kMaxPosition, absent);
    if (!size.ok()) return size.status();
    window = *size;
  }
  absl::StatusOr<Rotaries> rotaries = ReadRotaries(config, path, family, model);
  if (!rotaries.ok()) return rotaries.status();
  SetAttention(*windowed, window, std::move(rotaries->full), std::move(rotaries->windowed), model);
  if (family.unturned_interval == 0) return absl::OkStatus();
  const absl::StatusOr<std::vector<bool>> unturned = ReadUnturned(config, path, family, layers);
  if (unturned.ok()) LeaveUnturned(*unturned, model);
  return unturned.status();
}

// Older files say num_local_experts of what newer ones call num_experts, or both.
absl::Status ReadExperts(const Settings& settings, const Family& family, ModelDescriptor& model) {
  const ExpertSettings& experts = family.experts;
  if (experts.experts == 0) return absl::OkStatus();
  constexpr const char* kName = "num_experts";
  constexpr const char* kOther = "num_local_experts";
  const absl::StatusOr<int32_t> other = settings.Int(kOther, 1, kMaxExperts, experts.experts);
  if (!other.ok()) return other.status();
  const absl::StatusOr<int32_t> count = settings.Int(kName, 1, kMaxExperts, *other);
  if (!count.ok()) return count.status();
  if (settings.Has(kOther) && *count != *other) {
    return settings.Invalid(kName, absl::StrCat("is ", *count, ", but ", kOther, " is ", *other));
  }
  const absl::StatusOr<int32_t> a_row =
      settings.Int("num_experts_per_tok", 1, *count, experts.experts_a_row);
  if (!a_row.ok()) return a_row.status();
  const absl::StatusOr<bool> renormalise = HasPart(settings, experts.renormalise);
  if (!renormalise.ok()) return renormalise.status();
  absl::Status status = SetExperts(settings, settings.Has(kName) ? kName : kOther, *count, *a_row,
                                   *renormalise, model);
  if (!status.ok()) return status;
  if (experts.intermediate.empty()) return absl::OkStatus();
  const absl::StatusOr<int32_t> size = settings.Int(experts.intermediate, 1, kMaxIntermediate);
  if (size.ok()) model.intermediate_size = *size;
  return size.status();
}

// Scales, multipliers and soft-caps.
absl::Status ReadScales(const json& config, const std::string& path, const Family& family,
                        ModelDescriptor& model) {
  const JsonSettings settings(config, path);
  if (!family.attention_scalar.empty()) {
    const absl::StatusOr<double> scalar =
        settings.Positive(family.attention_scalar, kMaxMultiplier, family.default_attention_scalar);
    if (!scalar.ok()) return scalar.status();
    model.attention_scale = AttentionScale(*scalar);
  }
  if (family.soft_caps) {
    const SoftCaps& absent = family.default_soft_caps;
    const absl::StatusOr<double> attention =
        NumberOrNone(config, settings, "attn_logit_softcapping", absent.attention);
    if (!attention.ok()) return attention.status();
    const absl::StatusOr<double> logits =
        NumberOrNone(config, settings, "final_logit_softcapping", absent.logits);
    if (!logits.ok()) return logits.status();
    model.attention_soft_cap = static_cast<float>(*attention);
    model.logit_soft_cap = static_cast<float>(*logits);
  }
  if (!family.multipliers) return absl::OkStatus();
  Multipliers multipliers;
  double attention = 1;
  double divisor = 1;
  const struct {
    const char* name;
    double* value;
  } numbers[] = {{"embedding_multiplier", &multipliers.embedding},
                 {"residual_multiplier", &multipliers.residual},
                 {"attention_multiplier", &attention},
                 {"logits_scaling", &divisor}};
  for (const auto& entry : numbers) {
    const absl::StatusOr<double> value = settings.Positive(entry.name, kMaxMultiplier, 1);
    if (!value.ok()) return value.status();
    *entry.value = *value;
  }
  multipliers.logits = 1 / divisor;
  SetMultipliers(multipliers, model);
  model.attention_scale = static_cast<float>(attention);
  return absl::OkStatus();
}

absl::StatusOr<Activation> ReadActivation(const Settings& settings, const Family& family) {
  if (!settings.Has(family.activation_option)) return family.activation;
  const absl::StatusOr<std::string> name = settings.String(family.activation_option, "");
  if (!name.ok()) return name.status();
  if (!family.activation_alias.empty() && *name == family.activation_alias) {
    return family.activation;
  }
  if (const std::optional<Activation> activation = FindActivation(*name)) return *activation;
  return settings.Unsupported(
      family.activation_option,
      absl::StrCat("is ", Shown(*name), "; supported are silu, gelu_pytorch_tanh"));
}

}  // namespace

// By `model_type`, and `architectures` where it is given: a model with another head than one for
// generating is another model.
absl::StatusOr<const Family*> FamilyFromConfig(const json& config, const std::string& path) {
  const json* type = FindValue(config, "model_type");
  const json* architectures = FindValue(config, "architectures");
  const Family* family = nullptr;
  if (type != nullptr) {
    if (!type->is_string()) return InvalidFile(path, "model_type is not a string");
    family = FindFamilyByModelType(type->get_ref<const std::string&>());
    if (family == nullptr) {
      return UnsupportedFile(
          path, absl::StrCat("model_type is ", Shown(type->get_ref<const std::string&>()),
                             "; supported are ", SupportedModelTypes()));
    }
  }
  if (architectures == nullptr || (architectures->is_array() && architectures->empty())) {
    if (family != nullptr) return family;
    return InvalidFile(path, "has neither model_type nor architectures");
  }
  std::string shown;
  for (const json& entry : architectures->is_array() ? *architectures : json::array()) {
    if (!entry.is_string()) return InvalidFile(path, "architectures is not a list of strings");
    const std::string& name = entry.get_ref<const std::string&>();
    const Family* named = FindFamilyByArchitecture(name);
    if (named != nullptr && (family == nullptr || named == family)) return named;
    shown = Shown(name);
  }
  if (shown.empty()) return InvalidFile(path, "architectures is not a list of strings");
  return UnsupportedFile(
      path, absl::StrCat("architectures has ", shown, "; supported for ",
                         family ? std::string(family->model_type) : SupportedModelTypes(), ": ",
                         family ? std::string(family->architecture)
                                : "the CausalLM architectures of these"));
}

absl::StatusOr<ModelDescriptor> DescriptorFromConfig(const json& config, const std::string& path,
                                                     const Family& family) {
  const JsonSettings settings(config, path);
  if (absl::Status status = settings.CheckNeutral(family.neutral); !status.ok()) return status;
  // A setting that is absent has the default of transformers' configuration class.
  ShapeDefaults defaults = {.vocab_size = std::nullopt,
                            .kv_heads = std::nullopt,
                            .head_dim = std::nullopt,
                            .max_position = family.default_max_position,
                            .norm_epsilon = family.default_norm_epsilon};
  // Null is another thing than silence.
  if (family.default_kv_heads > 0 && !config.contains(std::string(kNames.kv_heads))) {
    defaults.kv_heads = family.default_kv_heads;
  }
  if (family.default_head_dim > 0) defaults.head_dim = family.default_head_dim;
  absl::StatusOr<ModelDescriptor> model = ReadShape(settings, kNames, defaults, family);
  if (!model.ok()) return model;

  const struct {
    OptionalPart part;
    bool* value;
  } parts[] = {{family.qkv_bias, &model->qkv_bias},
               {family.output_bias, &model->output_bias},
               {family.mlp_bias, &model->mlp_bias},
               {family.tied_head, &model->tied_head}};
  for (const auto& entry : parts) {
    const absl::StatusOr<bool> value = HasPart(settings, entry.part);
    if (!value.ok()) return value.status();
    *entry.value = *value;
  }
  const absl::StatusOr<Activation> activation = ReadActivation(settings, family);
  if (!activation.ok()) return activation.status();
  model->activation = *activation;
  if (absl::Status status = ReadAttention(config, path, family, *model); !status.ok()) {
    return status;
  }
  if (absl::Status status = ReadScales(config, path, family, *model); !status.ok()) {
    return status;
  }
  if (absl::Status status = ReadExperts(settings, family, *model); !status.ok()) return status;
  return model;
}

}  // namespace sirocco
