// A model's settings as its file states them: typed, checked for range, and each error under the
// file's own name for the setting.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/gguf.h"

namespace sirocco {

// A value of none of these kinds (a list, an object).
struct OtherKind {};
struct EmptyList {};
// monostate: absent or null.
using SettingValue =
    std::variant<std::monostate, bool, int64_t, double, std::string, EmptyList, OtherKind>;

// A setting that is not acted upon, and the one value that says so; an absent one says so too.
enum class Neutral : uint8_t {
  kAny,
  kAbsent,
  kFalse,
  kTrue,
  kZero,
  kOne,
  kNone /* "none" */,
  kEmpty /* [] */
};
struct NeutralSetting {
  std::string_view name;
  Neutral value;
};

// Far below what any model has, and far above what float32 holds as 0.
inline constexpr double kLeastPositive = 1e-15;

// Ranges are inclusive.
class Settings {
 public:
  virtual ~Settings() = default;
  virtual SettingValue Get(std::string_view name) const = 0;

  bool Has(std::string_view name) const {
    return !std::holds_alternative<std::monostate>(Get(name));
  }
  // INVALID_ARGUMENT: of another kind, out of range, or absent with no `absent` to take instead.
  absl::StatusOr<int32_t> Int(std::string_view name, int32_t least, int32_t most,
                              std::optional<int32_t> absent = std::nullopt) const;
  // At least kLeastPositive, at most `most`; an integer will do.
  absl::StatusOr<double> Positive(std::string_view name, double most,
                                  std::optional<double> absent = std::nullopt) const;
  absl::StatusOr<bool> Bool(std::string_view name, bool absent) const;
  absl::StatusOr<std::string> String(std::string_view name, std::string_view absent) const;

  // UNIMPLEMENTED names the first setting whose value is not the neutral one.
  absl::Status CheckNeutral(std::span<const NeutralSetting> settings) const;

  // Errors about the setting `name`: "path: prefix.name what".
  absl::Status Invalid(std::string_view name, std::string_view what) const;
  absl::Status Unsupported(std::string_view name, std::string_view what) const;

 protected:
  // `prefix`: stands before each name in the file, for people and for Get.
  Settings(std::string path, std::string prefix)
      : path_(std::move(path)), prefix_(std::move(prefix)) {}
  std::string FullName(std::string_view name) const { return prefix_ + std::string(name); }

 private:
  std::string path_;
  std::string prefix_;
};

// Of a JSON object, which must outlive this; `prefix` is its place in the file ("rope_scaling.").
class JsonSettings final : public Settings {
 public:
  JsonSettings(const nlohmann::json& object, std::string path, std::string prefix = "")
      : Settings(std::move(path), std::move(prefix)), object_(object) {}
  SettingValue Get(std::string_view name) const override;

 private:
  const nlohmann::json& object_;
};

// Of a GGUF file's metadata under `prefix` ("llama."). The file must outlive this.
class GgufSettings final : public Settings {
 public:
  GgufSettings(const GgufFile& file, std::string prefix)
      : Settings(file.path(), std::move(prefix)), file_(file) {}
  SettingValue Get(std::string_view name) const override;

 private:
  const GgufFile& file_;
};

}  // namespace sirocco
