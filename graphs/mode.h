// The five execution modes, and the two variables that choose one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sirocco {

enum class Mode : uint8_t { kEager, kDecoderGraph, kDecoder, kLayerGraph, kLayer };
// Those that compile stand in the order of EOLE_COMPILE_MODE.
inline constexpr Mode kAllModes[] = {Mode::kEager, Mode::kDecoderGraph, Mode::kDecoder,
                                     Mode::kLayerGraph, Mode::kLayer};

std::string_view NameOf(Mode mode);  // "eager", "decoder_graph", ...

// Replays recordings made at start-up.
constexpr bool UsesGraphs(Mode mode) {
  return mode == Mode::kDecoderGraph || mode == Mode::kLayerGraph;
}

// From the values of EOLE_TORCH_COMPILE ("0" if unset) and EOLE_COMPILE_MODE ("2" if unset). Both
// are always checked; INVALID_ARGUMENT names the variable, the value and what is allowed.
absl::StatusOr<Mode> ModeFromVariables(const std::optional<std::string>& torch_compile,
                                       const std::optional<std::string>& compile_mode);

}  // namespace sirocco
