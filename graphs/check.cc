#include "graphs/check.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "graphs/layer_params.h"
#include "graphs/prefill_sizes.h"
#include "kernels/limits.h"

namespace sirocco {
namespace {

constexpr int32_t kMaxPrefillChunk = 65536;
constexpr int32_t kMaxBlockSize = 1024;
constexpr int64_t kMaxExpertRows = int64_t{1} << 30;  // row numbers are 32 bits
constexpr int32_t kMaxWidth = 1 << 24;  // of any activation: keeps products far from overflow

absl::Status InRange(const char* what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " is ", value, "; allowed are ", low, " to ", high));
}

absl::Status CheckLayers(const ModelDescriptor& descriptor) {
  const int64_t groups = static_cast<int64_t>(descriptor.groups.size());
  const int64_t rotaries = static_cast<int64_t>(descriptor.rotaries.size());
  for (const LayerDescriptor& layer : descriptor.layers) {
    if (absl::Status s = InRange("a layer's group", layer.group, 0, groups - 1); !s.ok()) return s;
    if (absl::Status s = InRange("a layer's rotary", layer.rotary, 0, rotaries - 1); !s.ok()) {
      return s;
    }
  }
  for (const RotaryDescriptor& rotary : descriptor.rotaries) {
    const int64_t dim = 2 * static_cast<int64_t>(rotary.inverse_frequencies.size());
    if (absl::Status s = InRange("a rotary dimension", dim, 2, descriptor.head_dim); !s.ok()) {
      return s;
    }
    const int64_t long_dim = 2 * static_cast<int64_t>(rotary.long_inverse_frequencies.size());
    if (long_dim == 0) continue;
    if (absl::Status s = InRange("a rotary dimension of long sequences", long_dim, dim, dim);
        !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

absl::Status SameShape(const char* name, const Matrix& given, const Matrix& wanted) {
  const bool none = wanted.rows == 0;  // the model has no such weight
  if ((given.data == nullptr) == none && given.rows == wanted.rows && given.cols == wanted.cols) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("weight ", name, " is [", given.rows, ", ",
                                                 given.cols, "], the model needs [", wanted.rows,
                                                 ", ", wanted.cols, "]"));
}

// A model's layers have all the norms that it has, and no others.
absl::Status CheckNorms(const ModelDescriptor& descriptor, const LayerWeights& given,
                        size_t layer) {
  const struct {
    const char* name;
    const float* given;
    bool wanted;
  } kNorms[] = {
      {"attention_norm", given.attention_norm, descriptor.pre_norms},
      {"mlp_norm", given.mlp_norm, descriptor.pre_norms},
      {"q_norm", given.q_norm, descriptor.head_norms},
      {"k_norm", given.k_norm, descriptor.head_norms},
      {"q_whole_norm", given.q_whole_norm, descriptor.whole_norms},
      {"k_whole_norm", given.k_whole_norm, descriptor.whole_norms},
      {"attention_post_norm", given.attention_post_norm, descriptor.post_norms},
      {"mlp_post_norm", given.mlp_post_norm, descriptor.post_norms},
  };
  for (const auto& norm : kNorms) {
    if ((norm.given != nullptr) == norm.wanted) continue;
    return absl::InvalidArgumentError(
        norm.wanted ? absl::StrCat("layer ", layer, " lacks the norm ", norm.name)
                    : absl::StrCat("layer ", layer, " has a norm ", norm.name,
                                   ", which the model does not have"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckDescriptor(const ModelDescriptor& descriptor) {
  const struct {
    const char* what;
    int64_t value;
    int64_t high;
  } kSizes[] = {
      {"vocab_size", descriptor.vocab_size, kMaxWidth},
      {"hidden_size", descriptor.hidden_size, kMaxWidth},
      {"intermediate_size", descriptor.intermediate_size, kMaxWidth},
      {"head_dim", descriptor.head_dim, kMaxWidth},
      {"heads times head_dim", int64_t{descriptor.heads} * descriptor.head_dim, kMaxWidth},
      {"kv_heads", descriptor.kv_heads, descriptor.heads},
      {"max_position", descriptor.max_position, kMaxWidth},
      {"the number of layers", static_cast<int64_t>(descriptor.layers.size()), 4096},
      {"the number of layer groups", static_cast<int64_t>(descriptor.groups.size()),
       kMaxLayerGroups},
  };
  for (const auto& size : kSizes) {
    if (absl::Status s = InRange(size.what, size.value, 1, size.high); !s.ok()) return s;
  }
  if (descriptor.heads % descriptor.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("heads is ", descriptor.heads,
                                                   ", not a multiple of kv_heads, which is ",
                                                   descriptor.kv_heads));
  }
  if (descriptor.experts == 0) return CheckLayers(descriptor);
  if (absl::Status s = InRange("experts", descriptor.experts, 1, kMaxExperts); !s.ok()) return s;
  if (absl::Status s = InRange("experts_a_row", descriptor.experts_a_row, 1, descriptor.experts);
      !s.ok()) {
    return s;
  }
  const int64_t all =
      int64_t{descriptor.experts} * std::max(descriptor.intermediate_size, descriptor.hidden_size);
  if (absl::Status s = InRange("experts times their size", all, 1, kMaxExpertRows); !s.ok()) {
    return s;
  }
  if (descriptor.post_norms || descriptor.mlp_bias) {
    return absl::InvalidArgumentError("experts: neither post-norms nor biases go with them");
  }
  return CheckLayers(descriptor);
}

absl::Status CheckOptions(const ModelDescriptor& descriptor, const ExecutorOptions& options) {
  const struct {
    const char* what;
    int64_t value;
    int64_t high;
  } kRanges[] = {
      {"max_batch_size", options.max_batch_size, kMaxBatchSize},
      {"max_length", options.max_length, descriptor.max_position},
      {"prefill_chunk_size", options.prefill_chunk_size, kMaxPrefillChunk},
      {"block_size", options.block_size, kMaxBlockSize},
  };
  for (const auto& range : kRanges) {
    if (absl::Status s = InRange(range.what, range.value, 1, range.high); !s.ok()) return s;
  }
  const int64_t groups = static_cast<int64_t>(descriptor.groups.size());
  if (absl::Status s = InRange("the number of kv_blocks entries",
                               static_cast<int64_t>(options.kv_blocks.size()), groups, groups);
      !s.ok()) {
    return s;
  }
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t block_bytes =
        KvBlockBytes(descriptor, static_cast<int>(g), options.block_size, options.kv_dtype);
    // A group without layers takes no memory, whatever the number.
    const int64_t most = std::numeric_limits<int32_t>::max() - FillingBlocks(options);
    const int64_t fit = block_bytes == 0
                            ? most
                            : std::min(most, std::numeric_limits<int64_t>::max() / block_bytes -
                                                 FillingBlocks(options));
    if (absl::Status s = InRange("kv_blocks", options.kv_blocks[g], 1, fit); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status CheckWeights(const ModelDescriptor& descriptor, const ModelWeights& weights) {
  if (absl::Status s =
          InRange("the number of layers with weights", static_cast<int64_t>(weights.layers.size()),
                  static_cast<int64_t>(descriptor.layers.size()),
                  static_cast<int64_t>(descriptor.layers.size()));
      !s.ok()) {
    return s;
  }
  const ModelWeights wanted = WeightShapes(descriptor, weights.embedding.dtype);  // shapes alone
  absl::Status status = SameShape("embedding", weights.embedding, wanted.embedding);
  if (status.ok()) status = SameShape("head", weights.head, wanted.head);
  if (status.ok() && weights.final_norm == nullptr) {
    status = absl::InvalidArgumentError("weight final_norm is missing");
  }
  for (size_t i = 0; status.ok() && i < weights.layers.size(); ++i) {
    const LayerWeights& given = weights.layers[i];
    const LayerWeights& layer = wanted.layers[i];
    const struct {
      const char* name;
      const Matrix& given;
      const Matrix& wanted;
    } kMatrices[] = {
        {"q", given.q, layer.q},          {"k", given.k, layer.k},
        {"v", given.v, layer.v},          {"o", given.o, layer.o},
        {"gate", given.gate, layer.gate}, {"up", given.up, layer.up},
        {"down", given.down, layer.down}, {"router", given.router, layer.router},
    };
    for (const auto& matrix : kMatrices) {
      if (status.ok()) status = SameShape(matrix.name, matrix.given, matrix.wanted);
    }
    if (status.ok()) status = CheckNorms(descriptor, given, i);
  }
  return status;
}

}  // namespace sirocco
