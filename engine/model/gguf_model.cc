#include "engine/model/gguf_model.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/families.h"
#include "engine/model/file_error.h"
#include "engine/model/fused_tensors.h"
#include "engine/model/gguf.h"
#include "engine/model/gguf_rotary.h"
#include "engine/model/model_shape.h"
#include "engine/model/rotary.h"
#include "engine/model/settings.h"
#include "engine/model/tensor_index.h"
#include "engine/model/weight_places.h"
#include "kernels/limits.h"

namespace sirocco {
namespace {

constexpr ShapeNames kNames = {
    .vocab_size = "vocab_size",
    .hidden_size = "embedding_length",
    .intermediate_size = "feed_forward_length",
    .layers = "block_count",
    .heads = "attention.head_count",
    .kv_heads = "attention.head_count_kv",
    .head_dim = "attention.key_length",
    .max_position = "context_length",
    .norm_epsilon = "attention.layer_norm_rms_epsilon",
};

absl::StatusOr<const Family*> FindFamily(const GgufFile& file) {
  const GgufSettings general(file, "");
  constexpr NeutralSetting kNeutral[] = {{"split.count", Neutral::kOne}};
  // Some tools write 0 into a file that was never split.
  if (file.GetInt("split.count") != 0) {
    if (absl::Status status = general.CheckNeutral(kNeutral); !status.ok()) return status;
  }
  const absl::StatusOr<std::string> type = general.String("general.type", "model");
  if (!type.ok()) return type.status();
  if (*type != "model") {
    return general.Unsupported("general.type",
                               absl::StrCat("is ", Shown(*type), "; supported is 'model'"));
  }
  if (!general.Has("general.architecture")) {
    return general.Invalid("general.architecture", "is missing");
  }
  const absl::StatusOr<std::string> architecture = general.String("general.architecture", "");
  if (!architecture.ok()) return architecture.status();
  const bool experts = file.GetInt(*architecture + ".expert_count").value_or(0) > 0;
  const Family* family = FindFamilyByGgufArchitecture(*architecture, experts);
  if (family != nullptr) return family;
  return general.Unsupported(
      "general.architecture",
      absl::StrCat("is ", Shown(*architecture), "; supported are ", SupportedGgufArchitectures()));
}

// Every setting of the architecture is one we know, and those not acted upon are neutral.
absl::Status CheckSettings(const GgufFile& file, const Family& family, const std::string& prefix,
                           const Settings& settings) {
  for (const std::string_view key : file.keys()) {
    if (key.substr(0, prefix.size()) != prefix) continue;
    bool known = false;
    for (const auto& list : {family.gguf_settings, family.gguf_own_settings}) {
      for (const NeutralSetting& setting : list) {
        known = known || key.substr(prefix.size()) == setting.name;
      }
    }
    if (!known) return UnsupportedFile(file.path(), absl::StrCat(Shown(key), " is not supported"));
  }
  if (absl::Status status = settings.CheckNeutral(family.gguf_settings); !status.ok()) {
    return status;
  }
  return settings.CheckNeutral(family.gguf_own_settings);
}

// A setting that must say what the head size says. How much of a head turns: gguf_rotary.cc.
absl::Status CheckHeadDim(const Settings& settings, int32_t head_dim) {
  constexpr const char* kName = "attention.value_length";
  const absl::StatusOr<int32_t> value = settings.Int(kName, 1, 1 << 20, head_dim);
  if (!value.ok()) return value.status();
  if (*value == head_dim) return absl::OkStatus();
  return settings.Unsupported(
      kName, absl::StrCat("is ", *value, "; supported is the head size, ", head_dim));
}

// Which layers have a window, its size, the rotary embeddings, and which layers do not turn.
absl::Status ReadAttention(const GgufFile& file, const Settings& settings, const Family& family,
                           ModelDescriptor& model) {
  absl::StatusOr<RotaryDescriptor> full = ReadGgufRotary(file, settings, family, model);
  if (!full.ok()) return full.status();
  const size_t layers = model.layers.size();
  const WindowDefaults& windows = family.windows;
  if (windows.layers == WindowedLayers::kNone) {
    SetAttention(std::vector<bool>(layers, false), 0, *std::move(full), {}, model);
    if (family.unturned_interval == 0) return absl::OkStatus();
    LeaveUnturned(UnturnedByInterval(layers, family.unturned_interval), model);
    return absl::OkStatus();
  }
  const absl::StatusOr<int32_t> window =
      settings.Int("attention.sliding_window", 0, kMaxPosition, family.gguf_default_window);
  if (!window.ok()) return window.status();
  const absl::StatusOr<int32_t> pattern =
      settings.Int("attention.sliding_window_pattern", 1, kMaxLayers, std::max(windows.pattern, 1));
  if (!pattern.ok()) return pattern.status();
  RotaryDescriptor windowed = *full;
  if (windows.theta > 0) {
    const absl::StatusOr<double> theta =
        settings.Positive("rope.freq_base_swa", kMaxRotaryTheta, windows.theta);
    if (!theta.ok()) return theta.status();
    windowed = MakeRotary(model.head_dim, *theta);
  }
  std::vector<bool> which(layers, *window > 0);
  if (*window > 0 && windows.layers == WindowedLayers::kByPattern) {
    which = WindowedByPattern(layers, *pattern);
  }
  SetAttention(which, *window, *std::move(full), std::move(windowed), model);
  return absl::OkStatus();
}

// Scales, multipliers and soft-caps.
absl::Status ReadScales(const Settings& settings, const Family& family, ModelDescriptor& model) {
  if (static_cast<int64_t>(model.layers.size()) == family.gguf_wide_scale_layers) {
    model.attention_scale =
        AttentionScale(static_cast<double>(model.hidden_size) / static_cast<double>(model.heads));
  }
  Multipliers multipliers;
  double attention = model.attention_scale;
  double divisor = 1;
  double score_cap = family.default_soft_caps.attention;
  double logit_cap = family.default_soft_caps.logits;
  const struct {
    bool has;
    const char* name;
    double* value;
  } numbers[] = {{family.multipliers, "embedding_scale", &multipliers.embedding},
                 {family.multipliers, "residual_scale", &multipliers.residual},
                 {family.multipliers, "attention.scale", &attention},
                 {family.multipliers, "logit_scale", &divisor},
                 {family.soft_caps, "attn_logit_softcapping", &score_cap},
                 {family.soft_caps, "final_logit_softcapping", &logit_cap}};
  for (const auto& entry : numbers) {
    if (!entry.has) continue;
    const absl::StatusOr<double> value = settings.Positive(entry.name, 1e6, *entry.value);
    if (!value.ok()) return value.status();
    *entry.value = *value;
  }
  multipliers.logits = 1 / divisor;
  if (family.multipliers) SetMultipliers(multipliers, model);
  model.attention_scale = static_cast<float>(attention);
  model.attention_soft_cap = static_cast<float>(score_cap);
  model.logit_soft_cap = static_cast<float>(logit_cap);
  return absl::OkStatus();
}

// Files say nothing of how the chosen ones' shares add up: to 1, in all models with experts.
absl::Status ReadExperts(const Settings& settings, const Family& family, ModelDescriptor& model) {
  if (family.experts.experts == 0) return absl::OkStatus();
  const absl::StatusOr<int32_t> count = settings.Int("expert_count", 1, kMaxExperts);
  if (!count.ok()) return count.status();
  const absl::StatusOr<int32_t> a_row = settings.Int("expert_used_count", 1, *count);
  if (!a_row.ok()) return a_row.status();
  const absl::StatusOr<int32_t> size =
      settings.Int("expert_feed_forward_length", 1, kMaxIntermediate, model.intermediate_size);
  if (!size.ok()) return size.status();
  model.intermediate_size = *size;
  return SetExperts(settings, "expert_count", *count, *a_row, /*renormalise=*/true, model);
}

absl::StatusOr<ModelDescriptor> ReadDescriptor(const GgufFile& file, const Family& family) {
  const std::string prefix = absl::StrCat(std::string(family.gguf_architecture), ".");
  const GgufSettings settings(file, prefix);
  if (absl::Status status = CheckSettings(file, family, prefix, settings); !status.ok()) {
    return status;
  }
  ShapeDefaults defaults;
  const StoredTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr) return InvalidFile(file.path(), "has no tensor 'token_embd.weight'");
  if (embedding->shape.front() <= INT32_MAX) {
    defaults.vocab_size = static_cast<int32_t>(embedding->shape.front());
  }
  absl::StatusOr<ModelDescriptor> model = ReadShape(settings, kNames, defaults, family);
  if (!model.ok()) return model;
  if (absl::Status status = CheckHeadDim(settings, model->head_dim); !status.ok()) return status;

  const auto has_part = [&](const OptionalPart& part, std::string_view tensor) {
    return part.option.empty() ? part.otherwise : file.FindTensor(tensor) != nullptr;
  };
  model->qkv_bias = has_part(family.qkv_bias, "blk.0.attn_q.bias");
  model->output_bias = has_part(family.output_bias, "blk.0.attn_output.bias");
  model->mlp_bias = has_part(family.mlp_bias, "blk.0.ffn_down.bias");
  model->tied_head = file.FindTensor("output.weight") == nullptr;
  model->activation = family.activation;

  if (absl::Status status = ReadAttention(file, settings, family, *model); !status.ok()) {
    return status;
  }
  if (absl::Status status = ReadScales(settings, family, *model); !status.ok()) return status;
  if (absl::Status status = ReadExperts(settings, family, *model); !status.ok()) return status;
  return model;
}

absl::StatusOr<std::vector<StoredTensor>> TranslateTensors(const GgufFile& file,
                                                           const Family& family,
                                                           const ModelDescriptor& model) {
  std::vector<StoredTensor> tensors;
  tensors.reserve(file.tensors().size());
  for (const StoredTensor& stored : file.tensors()) {
    StoredTensor tensor = stored;
    if (!IsRotaryTensor(family, stored.name)) tensor.name = HuggingFaceName(family, stored.name);
    if (tensor.name.empty()) {
      return UnsupportedFile(file.path(), absl::StrCat("holds the tensor ", Shown(stored.name),
                                                       ", which a model of the architecture ",
                                                       std::string(family.name), " does not have"));
    }
    if (family.gguf_interleaved_rows) {
      if (absl::StrContains(tensor.name, ".q_proj.")) tensor.permuted_heads = model.heads;
      if (absl::StrContains(tensor.name, ".k_proj.")) tensor.permuted_heads = model.kv_heads;
    }
    tensors.push_back(std::move(tensor));
  }
  absl::StatusOr<std::vector<StoredTensor>> apart = SplitExperts(model.experts, std::move(tensors));
  if (!apart.ok()) return apart;
  return SplitFused(model, family.fused, *std::move(apart));
}

absl::StatusOr<std::vector<int32_t>> ReadEndTokenIds(const GgufFile& file, int32_t vocab_size) {
  constexpr std::string_view kKey = "tokenizer.ggml.eos_token_id";
  const GgufSettings settings(file, "");
  if (!settings.Has(kKey)) return std::vector<int32_t>();
  const absl::StatusOr<int32_t> id = settings.Int(kKey, 0, vocab_size - 1);
  if (!id.ok()) return id.status();
  return std::vector<int32_t>{*id};
}

}  // namespace

absl::StatusOr<ModelFiles> OpenGgufModel(const std::string& path) {
  absl::StatusOr<std::unique_ptr<GgufFile>> opened = GgufFile::Open(path);
  if (!opened.ok()) return opened.status();
  const std::shared_ptr<const GgufFile> file = *std::move(opened);
  const absl::StatusOr<const Family*> family = FindFamily(*file);
  if (!family.ok()) return family.status();
  absl::StatusOr<ModelDescriptor> descriptor = ReadDescriptor(*file, **family);
  if (!descriptor.ok()) return descriptor.status();

  ModelFiles files;
  files.descriptor = *std::move(descriptor);
  absl::StatusOr<std::vector<StoredTensor>> tensors =
      TranslateTensors(*file, **family, files.descriptor);
  if (!tensors.ok()) return tensors.status();
  files.tensors = std::make_shared<TensorIndex>(*std::move(tensors),
                                                std::vector<std::shared_ptr<const void>>{file});
  absl::Status complete = CheckTensors(files.descriptor, *files.tensors, path);
  if (!complete.ok()) return complete;
  absl::StatusOr<std::vector<int32_t>> ends = ReadEndTokenIds(*file, files.descriptor.vocab_size);
  if (!ends.ok()) return ends.status();
  files.end_token_ids = *std::move(ends);
  return files;
}

}  // namespace sirocco
