#include "engine/model/gguf_model.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/families.h"
#include "engine/model/file_error.h"
#include "engine/model/gguf.h"
#include "engine/model/model_shape.h"
#include "engine/model/rotary.h"
#include "engine/model/settings.h"
#include "engine/model/tensor_index.h"
#include "engine/model/tensor_rows.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

constexpr std::string_view kRopeFactors = "rope_freqs.weight";
constexpr float kLeastFactor = 1e-6f;
constexpr float kMostFactor = 1e6f;

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

const StoredTensor* FindTensor(const GgufFile& file, std::string_view name) {
  for (const StoredTensor& tensor : file.tensors()) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

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
  const Family* family = FindFamilyByGgufArchitecture(*architecture);
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

// Settings that must say what the head size says.
absl::Status CheckHeadDim(const Settings& settings, int32_t head_dim) {
  for (const char* name : {"attention.value_length", "rope.dimension_count"}) {
    const absl::StatusOr<int32_t> value = settings.Int(name, 1, 1 << 20, head_dim);
    if (!value.ok()) return value.status();
    if (*value == head_dim) continue;
    return settings.Unsupported(
        name, absl::StrCat("is ", *value, "; supported is the head size, ", head_dim));
  }
  return absl::OkStatus();
}

// Llama 3's scaling comes as a tensor of factors by which each rate is divided.
absl::Status DivideRates(const GgufFile& file, RotaryDescriptor& rotary) {
  const StoredTensor* tensor = FindTensor(file, kRopeFactors);
  if (tensor == nullptr) return absl::OkStatus();
  std::vector<float>& rates = rotary.inverse_frequencies;
  if (tensor->shape != std::vector<int64_t>{static_cast<int64_t>(rates.size())}) {
    return InvalidFile(file.path(),
                       absl::StrCat("the tensor ", Shown(kRopeFactors), " is ",
                                    DescribeTensor(*tensor), "; it must be [", rates.size(), "]"));
  }
  std::vector<float> factors(rates.size());
  if (absl::Status status = ReadRows(*tensor, 0, factors); !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < rates.size(); ++i) {
    if (!(factors[i] >= kLeastFactor && factors[i] <= kMostFactor)) {
      return InvalidFile(file.path(),
                         absl::StrCat("the tensor ", Shown(kRopeFactors), " has ", factors[i],
                                      "; allowed are ", kLeastFactor, " to ", kMostFactor));
    }
    rates[i] /= factors[i];
  }
  return absl::OkStatus();
}

// The rotary embedding of layers with full attention; the windowed ones' is never scaled.
absl::StatusOr<RotaryDescriptor> ReadFullRotary(const Settings& settings, const Family& family,
                                                int32_t head_dim) {
  const absl::StatusOr<double> theta =
      settings.Positive("rope.freq_base", kMaxRotaryTheta, family.default_theta);
  if (!theta.ok()) return theta.status();
  const absl::StatusOr<double> factor = settings.Positive("rope.scaling.factor", 1e6, 1);
  if (!factor.ok()) return factor.status();
  const absl::StatusOr<std::string> type = settings.String("rope.scaling.type", "linear");
  if (!type.ok()) return type.status();
  if (*type == "linear") return MakeRotary(head_dim, *theta, LinearScaling{*factor});
  if (*type == "none" && *factor == 1) return MakeRotary(head_dim, *theta);
  return settings.Unsupported("rope.scaling.type",
                              absl::StrCat("is ", Shown(*type), " with a factor of ", *factor,
                                           "; supported are 'linear', and 'none' without one"));
}

// Which layers have a window, its size, the rotary embeddings, and the scale.
absl::Status ReadAttention(const GgufFile& file, const Settings& settings, const Family& family,
                           ModelDescriptor& model) {
  absl::StatusOr<RotaryDescriptor> full = ReadFullRotary(settings, family, model.head_dim);
  if (!full.ok()) return full.status();
  const size_t layers = model.layers.size();
  if (family.windows.window == 0) {
    if (absl::Status status = DivideRates(file, *full); !status.ok()) return status;
    SetAttention(std::vector<bool>(layers, false), 0, *std::move(full), {}, model);
    return absl::OkStatus();
  }
  // A file without a window has full attention in every layer.
  const absl::StatusOr<int32_t> window =
      settings.Int("attention.sliding_window", 0, kMaxPosition, 0);
  if (!window.ok()) return window.status();
  const absl::StatusOr<int32_t> pattern =
      settings.Int("attention.sliding_window_pattern", 1, kMaxLayers, family.windows.pattern);
  if (!pattern.ok()) return pattern.status();
  const absl::StatusOr<double> theta =
      settings.Positive("rope.freq_base_swa", kMaxRotaryTheta, family.windows.theta);
  if (!theta.ok()) return theta.status();
  SetAttention(WindowedByPattern(layers, *window > 0 ? *pattern : 1), *window, *std::move(full),
               MakeRotary(model.head_dim, *theta), model);
  if (static_cast<int64_t>(layers) == family.gguf_wide_scale_layers) {
    model.attention_scale =
        AttentionScale(static_cast<double>(model.hidden_size) / static_cast<double>(model.heads));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelDescriptor> ReadDescriptor(const GgufFile& file, const Family& family) {
  const std::string prefix = absl::StrCat(std::string(family.gguf_architecture), ".");
  const GgufSettings settings(file, prefix);
  if (absl::Status status = CheckSettings(file, family, prefix, settings); !status.ok()) {
    return status;
  }
  ShapeDefaults defaults;
  const StoredTensor* embedding = FindTensor(file, "token_embd.weight");
  if (embedding == nullptr) return InvalidFile(file.path(), "has no tensor 'token_embd.weight'");
  if (embedding->shape.front() <= INT32_MAX) {
    defaults.vocab_size = static_cast<int32_t>(embedding->shape.front());
  }
  absl::StatusOr<ModelDescriptor> model = ReadShape(settings, kNames, defaults, family);
  if (!model.ok()) return model;
  if (absl::Status status = CheckHeadDim(settings, model->head_dim); !status.ok()) return status;

  const auto has_part = [&](const OptionalPart& part, std::string_view tensor) {
    return part.option.empty() ? part.otherwise : FindTensor(file, tensor) != nullptr;
  };
  model->qkv_bias = has_part(family.qkv_bias, "blk.0.attn_q.bias");
  model->output_bias = has_part(family.output_bias, "blk.0.attn_output.bias");
  model->mlp_bias = has_part(family.mlp_bias, "blk.0.ffn_down.bias");
  model->tied_head = FindTensor(file, "output.weight") == nullptr;
  model->activation = family.activation;

  if (absl::Status status = ReadAttention(file, settings, family, *model); !status.ok()) {
    return status;
  }
  return model;
}

absl::StatusOr<std::vector<StoredTensor>> TranslateTensors(const GgufFile& file,
                                                           const Family& family,
                                                           const ModelDescriptor& model) {
  std::vector<StoredTensor> tensors;
  tensors.reserve(file.tensors().size());
  for (const StoredTensor& stored : file.tensors()) {
    StoredTensor tensor = stored;
    const bool factors = stored.name == kRopeFactors && family.windows.window == 0;
    if (!factors) tensor.name = HuggingFaceName(family, stored.name);
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
  return tensors;
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
