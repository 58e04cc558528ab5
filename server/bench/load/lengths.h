// How long prompts and outputs of a load are: always the same, drawn, or as a file has them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace sirocco {

class Lengths {
 public:
  enum class Of : uint8_t { kPrompts, kOutputs };

  explicit Lengths(int32_t fixed) : text_(std::to_string(fixed)), kind_(Fixed{fixed}) {}

  // "128"; "uniform:LEAST:MOST"; "lognormal:MEDIAN:SIGMA:MOST" (sigma: of the logarithm; what is
  // longer than MOST is MOST); "file:PATH" (a whole number a line, taken in turn: two files of the
  // same requests stay pairs). Every length is from `least` to kMost. INVALID_ARGUMENT, NOT_FOUND:
  // what was given and what is allowed.
  static absl::StatusOr<Lengths> Parse(const std::string& text, int32_t least);
  static constexpr int32_t kMost = 1 << 20;

  // Of the request `index` of a load; the same for the same arguments.
  int32_t At(Of of, uint64_t seed, uint64_t index) const;
  // The longest that it can be.
  int32_t Longest() const;
  // Where all are the same.
  std::optional<int32_t> fixed() const;
  const std::string& text() const { return text_; }

 private:
  struct Fixed {
    int32_t length;
  };
  struct Uniform {
    int32_t least, most;
  };
  struct Lognormal {
    double median, sigma;
    int32_t least, most;
  };
  struct Listed {
    std::vector<int32_t> lengths;  // at least one
  };
  using Kind = std::variant<Fixed, Uniform, Lognormal, Listed>;

  Lengths(std::string text, Kind kind) : text_(std::move(text)), kind_(std::move(kind)) {}

  static absl::StatusOr<Kind> ParseKind(const std::string& text, int32_t least);
  static absl::StatusOr<Kind> ReadFile(const std::string& path, int32_t least);

  std::string text_;
  Kind kind_;
};

}  // namespace sirocco
