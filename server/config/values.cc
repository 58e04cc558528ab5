#include "server/config/values.h"

#include <array>
#include <charconv>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace sirocco {
namespace {

struct Unit {
  std::string_view name;
  int64_t factor;
};

constexpr std::array<Unit, 9> kByteUnits = {{{"TiB", int64_t{1} << 40},
                                             {"GiB", int64_t{1} << 30},
                                             {"MiB", int64_t{1} << 20},
                                             {"KiB", int64_t{1} << 10},
                                             {"TB", 1'000'000'000'000},
                                             {"GB", 1'000'000'000},
                                             {"MB", 1'000'000},
                                             {"KB", 1'000},
                                             {"B", 1}}};
constexpr std::array<Unit, 4> kTimeUnits = {
    {{"ms", 1}, {"s", 1'000}, {"m", 60'000}, {"h", 3'600'000}}};

// The whole of `text` as a decimal integer.
bool ReadInteger(std::string_view text, int64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// Reads "12MiB" as its number times its unit's factor; false if it is no such text.
template <size_t N>
bool ReadWithUnit(std::string_view text, const std::array<Unit, N>& units, bool unit_optional,
                  int64_t* value) {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  int64_t number = 0;
  if (!ReadInteger(text.substr(0, digits), &number)) return false;
  std::string_view unit = text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  if (unit.empty()) {
    *value = number;
    return unit_optional;
  }
  for (const Unit& known : units) {
    if (unit == known.name) return !__builtin_mul_overflow(number, known.factor, value);
  }
  return false;
}

}  // namespace

absl::StatusOr<int64_t> ParseInteger(std::string_view text, int64_t min, int64_t max) {
  int64_t value = 0;
  if (ReadInteger(text, &value) && value >= min && value <= max) return value;
  return absl::InvalidArgumentError(absl::StrCat("an integer from ", min, " to ", max));
}

absl::StatusOr<bool> ParseBool(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return absl::InvalidArgumentError("true or false");
}

absl::StatusOr<double> ParseNumber(std::string_view text, double min, double max) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= min && value <= max) {
    return value;
  }
  return absl::InvalidArgumentError(absl::StrCat("a number from ", min, " to ", max));
}

absl::StatusOr<std::map<std::string, double>> ParseWeights(std::string_view text) {
  std::map<std::string, double> weights;
  for (const absl::string_view part :
       absl::StrSplit(absl::string_view(text.data(), text.size()), ',', absl::SkipWhitespace())) {
    const std::pair<std::string, std::string> entry = absl::StrSplit(part, absl::MaxSplits('=', 1));
    const std::string name(absl::StripAsciiWhitespace(entry.first));
    const std::string number(absl::StripAsciiWhitespace(entry.second));
    const absl::StatusOr<double> weight = ParseNumber(number, 0.001, 1000);
    if (name.empty() || !weight.ok() || !weights.emplace(name, *weight).second) {
      return absl::InvalidArgumentError(
          "client names, each once, with weights from 0.001 to 1000, such as alice=3,bob=0.5");
    }
  }
  return weights;
}

std::string WeightsText(const std::map<std::string, double>& weights) {
  return absl::StrJoin(weights, ",", absl::PairFormatter("="));
}

absl::StatusOr<double> ParseShare(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value > 0 && value <= 1) {
    return value;
  }
  return absl::InvalidArgumentError("a share above 0 and at most 1, such as 0.9");
}

absl::StatusOr<int64_t> ParseBytes(std::string_view text, int64_t min, int64_t max) {
  int64_t value = 0;
  if (ReadWithUnit(text, kByteUnits, /*unit_optional=*/true, &value) && value >= min &&
      value <= max) {
    return value;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("bytes such as 512MiB or 4GiB, from ", BytesText(min), " to ", BytesText(max)));
}

absl::StatusOr<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  int64_t value = 0;
  constexpr int64_t kMost = 7 * 24 * 3'600'000;
  if (ReadWithUnit(text, kTimeUnits, /*unit_optional=*/false, &value) && value <= kMost) {
    return std::chrono::milliseconds(value);
  }
  return absl::InvalidArgumentError("a duration such as 500ms, 30s or 2m, at most 168h");
}

absl::StatusOr<std::string> ParseAddress(std::string_view text) {
  const size_t colon = text.rfind(':');
  int64_t port = 0;
  if (colon != std::string_view::npos && colon > 0) {
    const std::string_view host = text.substr(0, colon);
    const bool bracketed = host.front() == '[' && host.back() == ']' && host.size() > 2;
    const bool plain = host.find_first_of(":[] /") == std::string_view::npos;
    if ((bracketed || plain) && ReadInteger(text.substr(colon + 1), &port) && port >= 0 &&
        port <= 65535) {
      return std::string(text);
    }
  }
  return absl::InvalidArgumentError("HOST:PORT, with a port from 0 (any free one) to 65535");
}

std::string BytesText(int64_t bytes) {
  for (size_t i = 0; i < 4; ++i) {
    const Unit& unit = kByteUnits[i];
    if (bytes >= unit.factor && bytes % unit.factor == 0) {
      return absl::StrCat(bytes / unit.factor, std::string(unit.name));
    }
  }
  return absl::StrCat(bytes, "B");
}

std::string DurationText(std::chrono::milliseconds value) {
  const int64_t ms = value.count();
  return ms % 1000 == 0 ? absl::StrCat(ms / 1000, "s") : absl::StrCat(ms, "ms");
}

}  // namespace sirocco
