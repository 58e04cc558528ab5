#include "engine/model/gguf_rotary.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/model_shape.h"
#include "engine/model/rotary.h"
#include "engine/model/tensor_rows.h"

namespace sirocco {
namespace {

// Llama 3's scaling comes as factors by which each rate is divided, LongRoPE's as two lists.
constexpr std::string_view kFactors = "rope_freqs.weight";
constexpr std::string_view kShortFactors = "rope_factors_short.weight";
constexpr std::string_view kLongFactors = "rope_factors_long.weight";
constexpr float kLeastFactor = 1e-6f;
constexpr float kMostFactor = 1e6f;

absl::StatusOr<std::vector<double>> ReadFactors(const GgufFile& file, std::string_view name,
                                                size_t pairs) {
  const StoredTensor* tensor = file.FindTensor(name);
  if (tensor == nullptr) {
    return InvalidFile(file.path(), absl::StrCat("has no tensor ", Shown(name)));
  }
  if (tensor->shape != std::vector<int64_t>{static_cast<int64_t>(pairs)}) {
    return InvalidFile(file.path(),
                       absl::StrCat("the tensor ", Shown(name), " is ", DescribeTensor(*tensor),
                                    "; it must be [", pairs, "]"));
  }
  std::vector<float> factors(pairs);
  if (absl::Status status = ReadRows(*tensor, 0, factors); !status.ok()) return status;
  for (const float factor : factors) {
    if (factor >= kLeastFactor && factor <= kMostFactor) continue;  // not so of a NaN
    return InvalidFile(file.path(),
                       absl::StrCat("the tensor ", Shown(name), " has ", factor, "; allowed are ",
                                    kLeastFactor, " to ", kMostFactor));
  }
  return std::vector<double>(factors.begin(), factors.end());
}

// How many elements of each head turn.
absl::StatusOr<int32_t> ReadTurned(const Settings& settings, const Family& family,
                                   int32_t head_dim) {
  constexpr const char* kName = "rope.dimension_count";
  const absl::StatusOr<int32_t> turned = settings.Int(kName, 1, 1 << 20, head_dim);
  if (!turned.ok() || *turned == head_dim) return turned;
  if (!family.partial_rotary) {
    return settings.Unsupported(
        kName, absl::StrCat("is ", *turned, "; supported is the head size, ", head_dim));
  }
  if (*turned < head_dim && *turned % 2 == 0) return turned;
  return settings.Invalid(
      kName, absl::StrCat("is ", *turned, "; allowed are even numbers from 2 to ", head_dim));
}

absl::StatusOr<LongScaling> ReadLong(const GgufFile& file, const Settings& settings,
                                     const Family& family, const ModelDescriptor& model,
                                     size_t pairs) {
  LongScaling scaling;
  absl::StatusOr<std::vector<double>> factors = ReadFactors(file, kShortFactors, pairs);
  if (!factors.ok()) return factors.status();
  scaling.short_factors = *std::move(factors);
  factors = ReadFactors(file, kLongFactors, pairs);
  if (!factors.ok()) return factors.status();
  scaling.long_factors = *std::move(factors);
  const absl::StatusOr<int32_t> original = settings.Int(
      "rope.scaling.original_context_length", 2, kMaxPosition,
      family.default_original_context > 0 ? std::optional<int32_t>(family.default_original_context)
                                          : std::nullopt);
  if (!original.ok()) return original.status();
  scaling.original_context = *original;
  const absl::StatusOr<double> scale =
      settings.Positive("rope.scaling.attn_factor", 1e6,
                        LongScale(static_cast<double>(model.max_position) / *original, *original));
  if (!scale.ok()) return scale.status();
  scaling.scale = *scale;
  return scaling;
}

absl::StatusOr<RotaryScaling> ReadScaling(const GgufFile& file, const Settings& settings,
                                          const Family& family, const ModelDescriptor& model,
                                          size_t pairs) {
  const absl::StatusOr<double> factor = settings.Positive("rope.scaling.factor", 1e6, 1);
  if (!factor.ok()) return factor.status();
  const absl::StatusOr<std::string> type = settings.String("rope.scaling.type", "");
  if (!type.ok()) return type.status();
  if (IsRotaryTensor(family, kLongFactors) &&
      (file.FindTensor(kLongFactors) != nullptr || *type == "longrope")) {
    return ReadLong(file, settings, family, model, pairs);
  }
  constexpr NeutralSetting kNeutral[] = {{"rope.scaling.attn_factor", Neutral::kOne}};
  if (absl::Status status = settings.CheckNeutral(kNeutral); !status.ok()) return status;
  if (*type == "linear" || type->empty()) return LinearScaling{*factor};
  if (*type == "none" && *factor == 1) return LinearScaling();
  if (*type == "yarn") {
    const absl::StatusOr<int32_t> original =
        settings.Int("rope.scaling.original_context_length", 1, kMaxPosition, model.max_position);
    if (!original.ok()) return original.status();
    return YarnScaling{.factor = *factor,
                       .original_context = static_cast<double>(*original),
                       .scale = YarnScale(*factor)};
  }
  return settings.Unsupported("rope.scaling.type",
                              absl::StrCat("is ", Shown(*type), " with a factor of ", *factor,
                                           "; supported are 'linear', 'yarn', and 'none' without "
                                           "one"));
}

}  // namespace

bool IsRotaryTensor(const Family& family, std::string_view name) {
  if (name == kFactors) return family.windows.theta == 0;
  return (name == kShortFactors || name == kLongFactors) && family.partial_rotary;
}

absl::StatusOr<RotaryDescriptor> ReadGgufRotary(const GgufFile& file, const Settings& settings,
                                                const Family& family,
                                                const ModelDescriptor& model) {
  const absl::StatusOr<double> theta =
      settings.Positive("rope.freq_base", kMaxRotaryTheta, family.default_theta);
  if (!theta.ok()) return theta.status();
  const absl::StatusOr<int32_t> turned = ReadTurned(settings, family, model.head_dim);
  if (!turned.ok()) return turned.status();
  const size_t pairs = static_cast<size_t>(*turned) / 2;
  const absl::StatusOr<RotaryScaling> scaling = ReadScaling(file, settings, family, model, pairs);
  if (!scaling.ok()) return scaling.status();
  RotaryDescriptor rotary = MakeRotary(*turned, *theta, *scaling);
  if (!IsRotaryTensor(family, kFactors) || file.FindTensor(kFactors) == nullptr) return rotary;
  const absl::StatusOr<std::vector<double>> factors = ReadFactors(file, kFactors, pairs);
  if (!factors.ok()) return factors.status();
  for (size_t i = 0; i < pairs; ++i) {
    rotary.inverse_frequencies[i] /= static_cast<float>((*factors)[i]);
  }
  return rotary;
}

}  // namespace sirocco
