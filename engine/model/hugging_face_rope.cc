#include "engine/model/hugging_face_rope.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/json_file.h"
#include "engine/model/model_shape.h"
#include "engine/model/rotary.h"
#include "engine/model/settings.h"

namespace sirocco {
namespace {

using nlohmann::json;

constexpr double kMaxFactor = 1e6;

absl::StatusOr<Llama3Scaling> ReadLlama3(const Settings& settings) {
  Llama3Scaling scaling;
  const struct {
    const char* name;
    double most;
    double* value;
  } numbers[] = {
      {"factor", kMaxFactor, &scaling.factor},
      {"low_freq_factor", kMaxFactor, &scaling.low_freq_factor},
      {"high_freq_factor", kMaxFactor, &scaling.high_freq_factor},
      {"original_max_position_embeddings", 1 << 27, &scaling.original_context},
  };
  for (const auto& entry : numbers) {
    const absl::StatusOr<double> value = settings.Positive(entry.name, entry.most);
    if (!value.ok()) return value.status();
    *entry.value = *value;
  }
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    return settings.Invalid(
        "high_freq_factor",
        absl::StrCat("is ", scaling.high_freq_factor, "; it must be greater than low_freq_factor ",
                     scaling.low_freq_factor));
  }
  return scaling;
}

// The object that scales the rotary embedding, and its name: transformers 5's `rope_parameters`,
// which also has the base, or 4's `rope_scaling`. nullptr: neither.
absl::StatusOr<std::pair<const json*, std::string>> FindRope(const json& config,
                                                             const std::string& path) {
  const json* found = nullptr;
  std::string name;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json* value = FindValue(config, key);
    if (value == nullptr) continue;
    if (!value->is_object()) return InvalidFile(path, absl::StrCat(key, " is no object"));
    if (found != nullptr && *found != *value) {
      return InvalidFile(path, "rope_parameters and rope_scaling differ");
    }
    if (found != nullptr) continue;
    found = value;
    name = key;
  }
  return std::make_pair(found, name);
}

absl::Status CheckRopeKeys(const json& rope, const Settings& settings) {
  constexpr std::array<std::string_view, 8> kKnown = {
      "rope_type",       "type",
      "rope_theta",      "partial_rotary_factor",
      "factor",          "original_max_position_embeddings",
      "low_freq_factor", "high_freq_factor"};
  for (const auto& [key, value] : rope.items()) {
    bool known = false;
    for (const std::string_view name : kKnown) known = known || key == name;
    if (known || value.is_null()) continue;
    return settings.Unsupported(Shown(key), "is not supported");
  }
  constexpr NeutralSetting kNeutral[] = {{"partial_rotary_factor", Neutral::kOne}};
  return settings.CheckNeutral(kNeutral);
}

// Where a rotary embedding's base stands beside its object, and what it is where it stands nowhere.
struct Base {
  const char* name;
  double absent;
};

// `rope`: the embedding's object, which stands under `name` in the file, or nullptr.
absl::StatusOr<RotaryDescriptor> ReadRotary(const json& config, const std::string& path,
                                            const json* rope, const std::string& name,
                                            const Base& base, int32_t head_dim) {
  const JsonSettings top(config, path);
  absl::StatusOr<double> theta = top.Positive(base.name, kMaxRotaryTheta, base.absent);
  if (!theta.ok()) return theta.status();
  if (rope == nullptr) return MakeRotary(head_dim, *theta);

  const JsonSettings settings(*rope, path, name + ".");
  if (absl::Status status = CheckRopeKeys(*rope, settings); !status.ok()) return status;
  if (settings.Has("rope_theta")) {
    const absl::StatusOr<double> inner = settings.Positive("rope_theta", kMaxRotaryTheta);
    if (!inner.ok()) return inner.status();
    if (top.Has(base.name) && *inner != *theta) {
      return settings.Invalid("rope_theta",
                              absl::StrCat("is ", *inner, ", but ", base.name, " is ", *theta));
    }
    theta = *inner;
  }
  const char* type_name = settings.Has("rope_type") ? "rope_type" : "type";
  const absl::StatusOr<std::string> type = settings.String(type_name, "default");
  if (!type.ok()) return type.status();
  if (*type == "default") return MakeRotary(head_dim, *theta);
  if (*type == "linear") {
    const absl::StatusOr<double> factor = settings.Positive("factor", kMaxFactor);
    if (!factor.ok()) return factor.status();
    return MakeRotary(head_dim, *theta, LinearScaling{*factor});
  }
  if (*type != "llama3") {
    return settings.Unsupported(
        type_name, absl::StrCat("is ", Shown(*type), "; supported are default, linear, llama3"));
  }
  const absl::StatusOr<Llama3Scaling> scaling = ReadLlama3(settings);
  if (!scaling.ok()) return scaling.status();
  return MakeRotary(head_dim, *theta, *scaling);
}

// The objects of the two kinds of layers in one that has them by layer type; nullptr: it is silent.
struct RopeByLayerType {
  const json* full = nullptr;
  const json* windowed = nullptr;
};
constexpr const char* kFull = "full_attention";
constexpr const char* kWindowed = "sliding_attention";

absl::StatusOr<RopeByLayerType> SplitRope(const json& rope, const std::string& path,
                                          const std::string& name) {
  RopeByLayerType split;
  for (const auto& [key, value] : rope.items()) {
    const json** place = key == kFull ? &split.full : key == kWindowed ? &split.windowed : nullptr;
    if (value.is_null()) continue;
    if (place == nullptr) {
      return UnsupportedFile(path, absl::StrCat(name, " has ", Shown(key), "; supported are ",
                                                kFull, ", ", kWindowed));
    }
    if (!value.is_object()) {
      return InvalidFile(path, absl::StrCat(name, ".", key, " is no object"));
    }
    *place = &value;
  }
  return split;
}

}  // namespace

absl::StatusOr<Rotaries> ReadRotaries(const json& config, const std::string& path,
                                      const Family& family, int32_t head_dim) {
  const absl::StatusOr<std::pair<const json*, std::string>> found = FindRope(config, path);
  if (!found.ok()) return found.status();
  // By name, not as a binding: clang 14, which builds the fuzzers, captures none in a lambda.
  const json* const rope = found->first;
  const std::string& name = found->second;
  const bool windows = family.windows.window > 0;
  const bool by_type =
      windows && rope != nullptr && (rope->contains(kFull) || rope->contains(kWindowed));
  RopeByLayerType split = {.full = rope};
  if (by_type) {
    const absl::StatusOr<RopeByLayerType> read = SplitRope(*rope, path, name);
    if (!read.ok()) return read.status();
    split = *read;
  }
  const auto place = [&](const char* type) { return by_type ? name + "." + type : name; };

  Rotaries rotaries;
  absl::StatusOr<RotaryDescriptor> full = ReadRotary(
      config, path, split.full, place(kFull), {"rope_theta", family.default_theta}, head_dim);
  if (!full.ok()) return full.status();
  rotaries.full = *std::move(full);
  if (!windows) return rotaries;
  absl::StatusOr<RotaryDescriptor> windowed =
      ReadRotary(config, path, split.windowed, place(kWindowed),
                 {"rope_local_base_freq", family.windows.theta}, head_dim);
  if (!windowed.ok()) return windowed.status();
  rotaries.windowed = *std::move(windowed);
  return rotaries;
}

}  // namespace sirocco
