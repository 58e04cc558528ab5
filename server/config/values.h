// Text of a configuration value <-> the value. Errors say what is allowed, without the key.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sirocco {

absl::StatusOr<int64_t> ParseInteger(std::string_view text, int64_t min, int64_t max);
// "true" or "false".
absl::StatusOr<bool> ParseBool(std::string_view text);
// Above 0, at most 1.
absl::StatusOr<double> ParseShare(std::string_view text);
absl::StatusOr<double> ParseNumber(std::string_view text, double min, double max);
// "NAME=WEIGHT,...": each name once, weights from 0.001 to 1000.
absl::StatusOr<std::map<std::string, double>> ParseWeights(std::string_view text);
std::string WeightsText(const std::map<std::string, double>& weights);
// A whole number of bytes with an optional unit: B, KiB, MiB, GiB, TiB, KB, MB, GB, TB.
absl::StatusOr<int64_t> ParseBytes(std::string_view text, int64_t min, int64_t max);
// A whole number with a unit: "500ms", "30s", "2m", "1h".
absl::StatusOr<std::chrono::milliseconds> ParseDuration(std::string_view text);
// "HOST:PORT", "[V6]:PORT"; the port 0 ... 65535.
absl::StatusOr<std::string> ParseAddress(std::string_view text);

std::string BytesText(int64_t bytes);                       // "8MiB"; exact
std::string DurationText(std::chrono::milliseconds value);  // "30s", "250ms"

}  // namespace sirocco
