// The part of a descriptor that every format states in its own words.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/families.h"
#include "engine/model/settings.h"
#include "graphs/descriptor.h"

namespace sirocco {

// The names of the settings in a format, and what holds where one is absent (nullopt: an error).
struct ShapeNames {
  std::string_view vocab_size;
  std::string_view hidden_size;
  std::string_view intermediate_size;
  std::string_view layers;
  std::string_view heads;
  std::string_view kv_heads;  // absent: heads
  std::string_view head_dim;
  std::string_view max_position;
  std::string_view norm_epsilon;
};
struct ShapeDefaults {
  std::optional<int32_t> vocab_size;
  std::optional<int32_t> kv_heads;  // nullopt: heads
  std::optional<int32_t> head_dim;  // nullopt: hidden_size / heads
  std::optional<int32_t> max_position;
  std::optional<double> norm_epsilon;
};

inline constexpr int32_t kMaxLayers = 1024;
// In all layers: each is several tensors, and what they are called takes memory before any is
// found.
inline constexpr int32_t kMaxExpertsInAll = 1 << 16;
inline constexpr int32_t kMaxIntermediate = 1 << 20;
inline constexpr int32_t kMaxPosition = 1 << 27;
inline constexpr double kMaxRotaryTheta = 1e15;

// Sizes, all in range and consistent, and what the family fixes. Layers have no group and no rotary
// table yet: SetAttention. Biases, activation and tied_head are the caller's too.
absl::StatusOr<ModelDescriptor> ReadShape(const Settings& settings, const ShapeNames& names,
                                          const ShapeDefaults& defaults, const Family& family);

// Gives the layers their groups and rotary embeddings. `windowed`: by layer, whether it attends to
// the last `window` positions only, and turns by `windowed_rotary`; else to all. A model of
// one kind of layers has one group and one rotary embedding, and so has one whose two are alike.
void SetAttention(const std::vector<bool>& windowed, int32_t window, RotaryDescriptor full,
                  RotaryDescriptor windowed_rotary, ModelDescriptor& model);

// By layer: all have a window but the last of every `pattern`.
std::vector<bool> WindowedByPattern(size_t layers, int32_t pattern);

// After SetAttention: layers whose heads are not turned, by layer.
void LeaveUnturned(const std::vector<bool>& unturned, ModelDescriptor& model);
// By layer: none is left unturned but the last of every `interval`.
std::vector<bool> UnturnedByInterval(size_t layers, int32_t interval);

// Gives each layer its experts, of which the settings are called so. INVALID_ARGUMENT: there are
// more of them in all than kMaxExpertsInAll.
absl::Status SetExperts(const Settings& settings, std::string_view name, int32_t experts,
                        int32_t experts_a_row, bool renormalise, ModelDescriptor& model);

// What a model's parts are multiplied by, beside what their tensors say.
struct Multipliers {
  double embedding = 1;
  double residual = 1;  // what each block adds to the stream
  double logits = 1;
};
void SetMultipliers(const Multipliers& multipliers, ModelDescriptor& model);

// 1 / sqrt(scalar)
float AttentionScale(double scalar);

}  // namespace sirocco
