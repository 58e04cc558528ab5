// The part of a descriptor that every format states in its own words.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

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
  std::string_view head_dim;  // absent: hidden_size / heads
  std::string_view max_position;
  std::string_view norm_epsilon;
};
struct ShapeDefaults {
  std::optional<int32_t> vocab_size;
  std::optional<int32_t> max_position;
  std::optional<double> norm_epsilon;
};

inline constexpr double kMaxRotaryTheta = 1e15;

// Sizes, all in range and consistent; layers of one group with full attention and of rotary table
// 0, which the caller adds. Biases, activation and tied_head are the caller's too.
absl::StatusOr<ModelDescriptor> ReadShape(const Settings& settings, const ShapeNames& names,
                                          const ShapeDefaults& defaults, const Family& family);

}  // namespace sirocco
