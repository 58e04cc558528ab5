#include <array>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/model/families.h"
#include "engine/model/file_error.h"
#include "engine/model/hugging_face.h"
#include "engine/model/json_file.h"
#include "engine/model/model_shape.h"
#include "engine/model/rotary.h"
#include "engine/model/settings.h"

namespace sirocco {
namespace {

using nlohmann::json;

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

// By `model_type`, and `architectures` where it is given: a model with another head than one for
// generating is another model.
absl::StatusOr<const Family*> FindFamily(const json& config, const std::string& path) {
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

absl::StatusOr<bool> HasPart(const Settings& settings, const OptionalPart& part) {
  if (part.option.empty()) return part.otherwise;
  return settings.Bool(part.option, part.otherwise);
}

absl::Status CheckLayerTypes(const json& config, const std::string& path, size_t layers) {
  const json* types = FindValue(config, "layer_types");
  if (types == nullptr) return absl::OkStatus();
  if (!types->is_array() || types->size() != layers) {
    return InvalidFile(path, absl::StrCat("layer_types is no list of ", layers, " strings"));
  }
  for (const json& type : *types) {
    if (type == "full_attention") continue;
    return UnsupportedFile(path,
                           absl::StrCat("layer_types has ",
                                        type.is_string() ? Shown(type.get_ref<const std::string&>())
                                                         : std::string("no string"),
                                        "; supported is full_attention"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Activation> ReadActivation(const Settings& settings) {
  const absl::StatusOr<std::string> name = settings.String("hidden_act", "silu");
  if (!name.ok()) return name.status();
  if (*name == "silu") return Activation::kSilu;
  if (*name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  return settings.Unsupported(
      "hidden_act", absl::StrCat("is ", Shown(*name), "; supported are silu, gelu_pytorch_tanh"));
}

absl::StatusOr<Llama3Scaling> ReadLlama3(const Settings& settings) {
  Llama3Scaling scaling;
  const struct {
    const char* name;
    double most;
    double* value;
  } numbers[] = {
      {"factor", 1e6, &scaling.factor},
      {"low_freq_factor", 1e6, &scaling.low_freq_factor},
      {"high_freq_factor", 1e6, &scaling.high_freq_factor},
      {"original_max_position_embeddings", 1 << 27, &scaling.original_context},
  };
  for (const auto& entry : numbers) {
    const absl::StatusOr<double> value = settings.Positive(entry.name, entry.most);
    if (!value.ok()) return value.status();
    *entry.value = *value;
  }
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    return settings.Invalid(
        "high_freq_factor",
        absl::StrCat("is ", scaling.high_freq_factor, "; it must be greater than low_freq_factor ",
                     scaling.low_freq_factor));
  }
  return scaling;
}

// The object that scales the rotary embedding, and its name: transformers 5's `rope_parameters`,
// which also has the base, or 4's `rope_scaling`. nullptr: neither.
absl::StatusOr<std::pair<const json*, std::string>> FindRope(const json& config,
                                                             const std::string& path) {
  const json* found = nullptr;
  std::string name;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json* value = FindValue(config, key);
    if (value == nullptr) continue;
    if (!value->is_object()) return InvalidFile(path, absl::StrCat(key, " is no object"));
    if (found != nullptr && *found != *value) {
      return InvalidFile(path, "rope_parameters and rope_scaling differ");
    }
    if (found != nullptr) continue;
    found = value;
    name = key;
  }
  return std::make_pair(found, name);
}

absl::Status CheckRopeKeys(const json& rope, const Settings& settings) {
  constexpr std::array<std::string_view, 8> kKnown = {
      "rope_type",       "type",
      "rope_theta",      "partial_rotary_factor",
      "factor",          "original_max_position_embeddings",
      "low_freq_factor", "high_freq_factor"};
  for (const auto& [key, value] : rope.items()) {
    bool known = false;
    for (const std::string_view name : kKnown) known = known || key == name;
    if (known || value.is_null()) continue;
    return settings.Unsupported(Shown(key), "is not supported");
  }
  constexpr NeutralSetting kNeutral[] = {{"partial_rotary_factor", Neutral::kOne}};
  return settings.CheckNeutral(kNeutral);
}

absl::StatusOr<RotaryDescriptor> ReadRotary(const json& config, const std::string& path,
                                            int32_t head_dim) {
  constexpr double kDefaultTheta = 10000;
  const absl::StatusOr<std::pair<const json*, std::string>> found = FindRope(config, path);
  if (!found.ok()) return found.status();
  const JsonSettings top(config, path);
  absl::StatusOr<double> theta = top.Positive("rope_theta", kMaxRotaryTheta, kDefaultTheta);
  if (!theta.ok()) return theta.status();
  const auto& [rope, name] = *found;
  if (rope == nullptr) return MakeRotary(head_dim, *theta);

  const JsonSettings settings(*rope, path, name + ".");
  if (absl::Status status = CheckRopeKeys(*rope, settings); !status.ok()) return status;
  if (settings.Has("rope_theta")) {
    const absl::StatusOr<double> inner = settings.Positive("rope_theta", kMaxRotaryTheta);
    if (!inner.ok()) return inner.status();
    if (top.Has("rope_theta") && *inner != *theta) {
      return settings.Invalid("rope_theta",
                              absl::StrCat("is ", *inner, ", but rope_theta is ", *theta));
    }
    theta = *inner;
  }
  const char* type_name = settings.Has("rope_type") ? "rope_type" : "type";
  const absl::StatusOr<std::string> type = settings.String(type_name, "default");
  if (!type.ok()) return type.status();
  if (*type == "default") return MakeRotary(head_dim, *theta);
  if (*type != "llama3") {
    return settings.Unsupported(
        type_name, absl::StrCat("is ", Shown(*type), "; supported are default, llama3"));
  }
  const absl::StatusOr<Llama3Scaling> scaling = ReadLlama3(settings);
  if (!scaling.ok()) return scaling.status();
  return MakeRotary(head_dim, *theta, *scaling);
}

}  // namespace

absl::StatusOr<ModelDescriptor> DescriptorFromConfig(const json& config, const std::string& path) {
  const absl::StatusOr<const Family*> found = FindFamily(config, path);
  if (!found.ok()) return found.status();
  const Family& family = **found;
  const JsonSettings settings(config, path);
  if (absl::Status status = settings.CheckNeutral(family.neutral); !status.ok()) return status;
  // A setting that is absent has the default of transformers' configuration class.
  const ShapeDefaults defaults = {.vocab_size = std::nullopt,
                                  .max_position = family.default_max_position,
                                  .norm_epsilon = 1e-6};
  absl::StatusOr<ModelDescriptor> model = ReadShape(settings, kNames, defaults, family);
  if (!model.ok()) return model;

  const struct {
    OptionalPart part;
    bool* value;
  } parts[] = {{family.qkv_bias, &model->qkv_bias},
               {family.output_bias, &model->output_bias},
               {family.mlp_bias, &model->mlp_bias},
               {{"tie_word_embeddings", false}, &model->tied_head}};
  for (const auto& entry : parts) {
    const absl::StatusOr<bool> value = HasPart(settings, entry.part);
    if (!value.ok()) return value.status();
    *entry.value = *value;
  }
  if (absl::Status status = CheckLayerTypes(config, path, model->layers.size()); !status.ok()) {
    return status;
  }
  const absl::StatusOr<Activation> activation = ReadActivation(settings);
  if (!activation.ok()) return activation.status();
  model->activation = *activation;
  absl::StatusOr<RotaryDescriptor> rotary = ReadRotary(config, path, model->head_dim);
  if (!rotary.ok()) return rotary.status();
  model->rotaries.push_back(*std::move(rotary));
  return model;
}

}  // namespace sirocco
