#include "engine/model/generation_config.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/json_file.h"
#include "engine/model/settings.h"

namespace sirocco {
namespace {

constexpr size_t kMaxEndTokens = 1024;

// A number of [least, most], or above least where `open`; nullopt: absent.
absl::StatusOr<std::optional<float>> Number(const JsonSettings& settings, const char* name,
                                            bool open, double least, double most) {
  const SettingValue value = settings.Get(name);
  if (std::holds_alternative<std::monostate>(value)) return std::nullopt;
  std::optional<double> number;
  if (const int64_t* integer = std::get_if<int64_t>(&value)) {
    number = static_cast<double>(*integer);
  } else if (const double* real = std::get_if<double>(&value)) {
    number = *real;
  }
  if (number && *number >= least && *number <= most && !(open && *number == least)) {
    return static_cast<float>(*number);
  }
  return settings.Invalid(name, absl::StrCat("must be a number ", open ? "above " : "from ", least,
                                             open ? ", at most " : " to ", most));
}

absl::StatusOr<std::optional<int32_t>> Count(const JsonSettings& settings, const char* name,
                                             int32_t least) {
  if (!settings.Has(name)) return std::nullopt;
  return settings.Int(name, least, std::numeric_limits<int32_t>::max());
}

}  // namespace

absl::StatusOr<GenerationDefaults> ReadGenerationDefaults(const nlohmann::json& config,
                                                          const std::string& path) {
  const JsonSettings settings(config, path);
  GenerationDefaults defaults;
  if (settings.Has("do_sample")) {
    const absl::StatusOr<bool> do_sample = settings.Bool("do_sample", false);
    if (!do_sample.ok()) return do_sample.status();
    defaults.do_sample = *do_sample;
  }
  const struct {
    const char* name;
    bool open;
    double least, most;
    std::optional<float>* value;
  } numbers[] = {
      {"temperature", false, 0, 100, &defaults.temperature},
      {"top_p", true, 0, 1, &defaults.top_p},
      {"min_p", false, 0, 1, &defaults.min_p},
      {"repetition_penalty", true, 0, 1e6, &defaults.repetition_penalty},
  };
  for (const auto& entry : numbers) {
    auto value = Number(settings, entry.name, entry.open, entry.least, entry.most);
    if (!value.ok()) return value.status();
    *entry.value = *value;
  }
  absl::StatusOr<std::optional<int32_t>> top_k = Count(settings, "top_k", -1);
  if (!top_k.ok()) return top_k.status();
  defaults.top_k = *top_k;
  absl::StatusOr<std::optional<int32_t>> ngram = Count(settings, "no_repeat_ngram_size", 0);
  if (!ngram.ok()) return ngram.status();
  defaults.no_repeat_ngram_size = *ngram;
  return defaults;
}

absl::StatusOr<std::vector<int32_t>> ReadEndTokenIds(const nlohmann::json& config,
                                                     const std::string& path, int32_t vocab_size) {
  std::vector<int32_t> ids;
  const nlohmann::json* value = FindValue(config, "eos_token_id");
  if (value == nullptr) return ids;
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  if (list.size() > kMaxEndTokens) {
    return InvalidFile(path, absl::StrCat("eos_token_id lists ", list.size(), " ids; allowed are ",
                                          kMaxEndTokens));
  }
  for (const nlohmann::json& entry : list) {
    const std::optional<int64_t> id = JsonInt(entry);
    if (!id || *id < 0 || *id >= vocab_size) {
      return InvalidFile(
          path, absl::StrCat("eos_token_id ", id ? absl::StrCat("has ", *id) : "is no integer",
                             "; allowed are ids from 0 to ", vocab_size - 1));
    }
    const int32_t token = static_cast<int32_t>(*id);
    if (std::find(ids.begin(), ids.end(), token) == ids.end()) ids.push_back(token);
  }
  return ids;
}

}  // namespace sirocco
