#include "engine/model/hugging_face_rope.h"

#include <optional>
#include <utility>
#include <vector>

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
  constexpr std::string_view kKnown[] = {"rope_type",        "type",
                                         "rope_theta",       "partial_rotary_factor",
                                         "factor",           "original_max_position_embeddings",
                                         "low_freq_factor",  "high_freq_factor",
                                         "attention_factor", "beta_fast",
                                         "beta_slow",        "mscale",
                                         "mscale_all_dim",   "truncate",
                                         "short_factor",     "long_factor"};
  for (const auto& [key, value] : rope.items()) {
    bool known = false;
    for (const std::string_view name : kKnown) known = known || key == name;
    if (known || value.is_null()) continue;
    return settings.Unsupported(Shown(key), "is not supported");
  }
  return absl::OkStatus();
}

// A rotary embedding as it is read: its object, which stands under `name` in the file, or nullptr.
struct RopePlace {
  const json& config;
  const std::string& path;
  const json* rope;
  std::string name;
};

// Where a rotary embedding's base stands beside its object, and what it is where it stands nowhere.
struct Base {
  const char* name;
  double absent;
};

// What else of the model it depends on.
struct Surroundings {
  const Family& family;
  int32_t head_dim;
  int32_t max_position;
};

absl::StatusOr<double> ReadTheta(const Settings& top, const Settings& settings, const Base& base) {
  const absl::StatusOr<double> outer = top.Positive(base.name, kMaxRotaryTheta, base.absent);
  if (!outer.ok() || !settings.Has("rope_theta")) return outer;
  const absl::StatusOr<double> inner = settings.Positive("rope_theta", kMaxRotaryTheta);
  if (inner.ok() && top.Has(base.name) && *inner != *outer) {
    return settings.Invalid("rope_theta",
                            absl::StrCat("is ", *inner, ", but ", base.name, " is ", *outer));
  }
  return inner;
}

// How many elements of each head turn.
absl::StatusOr<int32_t> ReadTurned(const Settings& top, const Settings& settings,
                                   const Surroundings& model) {
  constexpr const char* kName = "partial_rotary_factor";
  if (!model.family.partial_rotary) {
    constexpr NeutralSetting kNeutral[] = {{kName, Neutral::kOne}};
    absl::Status status = settings.CheckNeutral(kNeutral);
    if (!status.ok()) return status;
    return model.head_dim;
  }
  const Settings& place = settings.Has(kName) ? settings : top;
  const absl::StatusOr<double> factor = place.Positive(kName, 1, 1);
  if (!factor.ok()) return factor.status();
  const int32_t turned = static_cast<int32_t>(model.head_dim * *factor);
  if (turned > 0 && turned % 2 == 0) return turned;
  return place.Invalid(kName,
                       absl::StrCat("is ", *factor, ": of heads of ", model.head_dim, " ", turned,
                                    " elements would turn; allowed are even numbers"));
}

absl::StatusOr<YarnScaling> ReadYarn(const Settings& settings, const Surroundings& model) {
  YarnScaling scaling;
  const struct {
    const char* name;
    double most;
    std::optional<double> absent;
    double* value;
  } numbers[] = {
      {"original_max_position_embeddings", kMaxPosition, model.max_position,
       &scaling.original_context},
      {"beta_fast", kMaxFactor, 32, &scaling.beta_fast},
      {"beta_slow", kMaxFactor, 1, &scaling.beta_slow},
  };
  for (const auto& entry : numbers) {
    const absl::StatusOr<double> value = settings.Positive(entry.name, entry.most, entry.absent);
    if (!value.ok()) return value.status();
    *entry.value = *value;
  }
  if (scaling.beta_fast <= scaling.beta_slow) {
    return settings.Invalid(
        "beta_fast", absl::StrCat("is ", scaling.beta_fast, "; it must be greater than beta_slow ",
                                  scaling.beta_slow));
  }
  const absl::StatusOr<double> factor =
      settings.Positive("factor", kMaxFactor, model.max_position / scaling.original_context);
  if (!factor.ok()) return factor.status();
  scaling.factor = *factor;
  const absl::StatusOr<bool> whole = settings.Bool("truncate", true);
  if (!whole.ok()) return whole.status();
  scaling.whole_pairs = *whole;
  double scale = YarnScale(scaling.factor);
  if (settings.Has("mscale") && settings.Has("mscale_all_dim")) {
    const absl::StatusOr<double> m = settings.Positive("mscale", kMaxFactor);
    if (!m.ok()) return m.status();
    const absl::StatusOr<double> all = settings.Positive("mscale_all_dim", kMaxFactor);
    if (!all.ok()) return all.status();
    scale = YarnScale(scaling.factor, *m) / YarnScale(scaling.factor, *all);
  }
  const absl::StatusOr<double> given = settings.Positive("attention_factor", kMaxFactor, scale);
  if (!given.ok()) return given.status();
  scaling.scale = *given;
  return scaling;
}

absl::StatusOr<std::vector<double>> ReadFactors(const json& rope, const Settings& settings,
                                                const char* name, size_t pairs) {
  const json* list = FindValue(rope, name);
  const auto invalid = [&] {
    return settings.Invalid(name, absl::StrCat("is no list of ", pairs, " numbers of at least ",
                                               1 / kMaxFactor, ", at most ", kMaxFactor));
  };
  if (list == nullptr || !list->is_array() || list->size() != pairs) return invalid();
  std::vector<double> factors;
  for (const json& value : *list) {
    if (!value.is_number()) return invalid();
    factors.push_back(value.get<double>());
    if (!(factors.back() >= 1 / kMaxFactor && factors.back() <= kMaxFactor)) return invalid();
  }
  return factors;
}

// `pairs`: of elements that turn together.
absl::StatusOr<LongScaling> ReadLong(const RopePlace& place, const Settings& top,
                                     const Settings& settings, const Surroundings& model,
                                     size_t pairs) {
  constexpr const char* kOriginal = "original_max_position_embeddings";
  LongScaling scaling;
  for (const auto& [name, factors] : {std::pair("short_factor", &scaling.short_factors),
                                      std::pair("long_factor", &scaling.long_factors)}) {
    absl::StatusOr<std::vector<double>> read = ReadFactors(*place.rope, settings, name, pairs);
    if (!read.ok()) return read.status();
    *factors = *std::move(read);
  }
  std::optional<int32_t> absent;
  if (model.family.default_original_context > 0) absent = model.family.default_original_context;
  const absl::StatusOr<int32_t> original = settings.Has(kOriginal)
                                               ? settings.Int(kOriginal, 2, kMaxPosition)
                                               : top.Int(kOriginal, 2, kMaxPosition, absent);
  if (!original.ok()) return original.status();
  scaling.original_context = *original;
  const double ratio = static_cast<double>(model.max_position) / *original;
  const absl::StatusOr<double> factor = settings.Positive("factor", kMaxFactor, ratio);
  if (!factor.ok()) return factor.status();
  const absl::StatusOr<double> scale =
      settings.Positive("attention_factor", kMaxFactor, LongScale(*factor, *original));
  if (!scale.ok()) return scale.status();
  scaling.scale = *scale;
  return scaling;
}

absl::StatusOr<RotaryScaling> ReadScaling(const RopePlace& place, const Settings& top,
                                          const Settings& settings, const Surroundings& model,
                                          int32_t turned) {
  const char* type_name = settings.Has("rope_type") ? "rope_type" : "type";
  const absl::StatusOr<std::string> type = settings.String(type_name, "default");
  if (!type.ok()) return type.status();
  // "dynamic" changes the rates of sequences beyond max_position, and there are none.
  if (*type == "default" || *type == "dynamic") return LinearScaling();
  if (*type == "linear") {
    const absl::StatusOr<double> factor = settings.Positive("factor", kMaxFactor);
    if (!factor.ok()) return factor.status();
    return LinearScaling{*factor};
  }
  if (*type == "llama3") return ReadLlama3(settings);
  if (*type == "yarn") return ReadYarn(settings, model);
  // "su": what it was first called.
  if (*type == "longrope" || *type == "su") {
    return ReadLong(place, top, settings, model, static_cast<size_t>(turned) / 2);
  }
  return settings.Unsupported(
      type_name, absl::StrCat("is ", Shown(*type),
                              "; supported are default, linear, dynamic, llama3, yarn, longrope"));
}

absl::StatusOr<RotaryDescriptor> ReadRotary(const RopePlace& place, const Base& base,
                                            const Surroundings& model) {
  const JsonSettings top(place.config, place.path);
  const json none = json::object();
  const json& rope = place.rope != nullptr ? *place.rope : none;
  const JsonSettings settings(rope, place.path, place.name + ".");
  if (absl::Status status = CheckRopeKeys(rope, settings); !status.ok()) return status;
  const absl::StatusOr<double> theta = ReadTheta(top, settings, base);
  if (!theta.ok()) return theta.status();
  const absl::StatusOr<int32_t> turned = ReadTurned(top, settings, model);
  if (!turned.ok()) return turned.status();
  const absl::StatusOr<RotaryScaling> scaling =
      ReadScaling({place.config, place.path, &rope, place.name}, top, settings, model, *turned);
  if (!scaling.ok()) return scaling.status();
  return MakeRotary(*turned, *theta, *scaling);
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
                                      const Family& family, const ModelDescriptor& model) {
  const absl::StatusOr<std::pair<const json*, std::string>> found = FindRope(config, path);
  if (!found.ok()) return found.status();
  // By name, not as a binding: clang 14, which builds the fuzzers, captures none in a lambda.
  const json* const rope = found->first;
  const std::string& name = found->second;
  const Surroundings surroundings = {family, model.head_dim, model.max_position};
  const bool of_their_own = family.windows.theta > 0;  // windowed layers have another embedding
  const bool by_type =
      of_their_own && rope != nullptr && (rope->contains(kFull) || rope->contains(kWindowed));
  RopeByLayerType split = {.full = rope};
  if (by_type) {
    const absl::StatusOr<RopeByLayerType> read = SplitRope(*rope, path, name);
    if (!read.ok()) return read.status();
    split = *read;
  }
  const auto place = [&](const json* object, const char* type) {
    return RopePlace{config, path, object, by_type ? name + "." + type : name};
  };

  Rotaries rotaries;
  absl::StatusOr<RotaryDescriptor> full =
      ReadRotary(place(split.full, kFull), {"rope_theta", family.default_theta}, surroundings);
  if (!full.ok()) return full.status();
  rotaries.full = *std::move(full);
  if (!of_their_own) {
    rotaries.windowed = rotaries.full;
    return rotaries;
  }
  absl::StatusOr<RotaryDescriptor> windowed =
      ReadRotary(place(split.windowed, kWindowed), {"rope_local_base_freq", family.windows.theta},
                 surroundings);
  if (!windowed.ok()) return windowed.status();
  rotaries.windowed = *std::move(windowed);
  return rotaries;
}

}  // namespace sirocco
