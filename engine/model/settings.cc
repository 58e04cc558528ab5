#include "engine/model/settings.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/json_file.h"

namespace sirocco {
namespace {

// A setting's text beyond this is none that is known; of the longest ones no copies are made.
constexpr size_t kMostShown = 1024;

// What a setting is, for an error message: "is 'yarn'".
std::string Is(const SettingValue& value) {
  if (std::holds_alternative<std::monostate>(value)) return "is missing";
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "is true" : "is false";
  if (const int64_t* number = std::get_if<int64_t>(&value)) return absl::StrCat("is ", *number);
  if (const double* number = std::get_if<double>(&value)) return absl::StrCat("is ", *number);
  if (const std::string* text = std::get_if<std::string>(&value)) {
    return absl::StrCat("is ", Shown(*text));
  }
  return "is a list or an object";
}

bool IsNumber(const SettingValue& value, int64_t number) {
  if (const int64_t* integer = std::get_if<int64_t>(&value)) return *integer == number;
  const double* real = std::get_if<double>(&value);
  return real && *real == static_cast<double>(number);
}

bool IsNeutral(const SettingValue& value, Neutral neutral) {
  if (std::holds_alternative<std::monostate>(value)) return true;
  const bool* flag = std::get_if<bool>(&value);
  const std::string* text = std::get_if<std::string>(&value);
  switch (neutral) {
    case Neutral::kAny:
      return true;
    case Neutral::kAbsent:
      return false;
    case Neutral::kFalse:
      return flag && !*flag;
    case Neutral::kTrue:
      return flag && *flag;
    case Neutral::kZero:
      return IsNumber(value, 0);
    case Neutral::kOne:
      return IsNumber(value, 1);
    case Neutral::kNone:
      return text && *text == "none";
    case Neutral::kEmpty:
      return std::holds_alternative<EmptyList>(value);
  }
  return false;
}

std::string_view NameOf(Neutral neutral) {
  switch (neutral) {
    case Neutral::kAny:
      return "any";
    case Neutral::kAbsent:
      return "none at all";
    case Neutral::kFalse:
      return "false";
    case Neutral::kTrue:
      return "true";
    case Neutral::kZero:
      return "0";
    case Neutral::kOne:
      return "1";
    case Neutral::kNone:
      return "'none'";
    case Neutral::kEmpty:
      return "an empty list";
  }
  return "?";
}

}  // namespace

absl::Status Settings::Invalid(std::string_view name, std::string_view what) const {
  return InvalidFile(path_, absl::StrCat(FullName(name), " ", std::string(what)));
}

absl::Status Settings::Unsupported(std::string_view name, std::string_view what) const {
  return UnsupportedFile(path_, absl::StrCat(FullName(name), " ", std::string(what)));
}

absl::StatusOr<int32_t> Settings::Int(std::string_view name, int32_t least, int32_t most,
                                      std::optional<int32_t> absent) const {
  const SettingValue value = Get(name);
  if (absent && std::holds_alternative<std::monostate>(value)) return *absent;
  const int64_t* number = std::get_if<int64_t>(&value);
  if (number && *number >= least && *number <= most) return static_cast<int32_t>(*number);
  return Invalid(name,
                 absl::StrCat(Is(value), "; allowed are integers from ", least, " to ", most));
}

absl::StatusOr<double> Settings::Positive(std::string_view name, double most,
                                          std::optional<double> absent) const {
  const SettingValue value = Get(name);
  if (absent && std::holds_alternative<std::monostate>(value)) return *absent;
  double number = 0;
  if (const int64_t* integer = std::get_if<int64_t>(&value)) {
    number = static_cast<double>(*integer);
  } else if (const double* real = std::get_if<double>(&value)) {
    number = *real;
  }
  if (number >= kLeastPositive && number <= most) return number;  // not so of a NaN
  return Invalid(name, absl::StrCat(Is(value), "; allowed are numbers of at least ", kLeastPositive,
                                    ", at most ", most));
}

absl::StatusOr<bool> Settings::Bool(std::string_view name, bool absent) const {
  const SettingValue value = Get(name);
  if (std::holds_alternative<std::monostate>(value)) return absent;
  if (const bool* flag = std::get_if<bool>(&value)) return *flag;
  return Invalid(name, absl::StrCat(Is(value), "; allowed are true and false"));
}

absl::StatusOr<std::string> Settings::String(std::string_view name, std::string_view absent) const {
  const SettingValue value = Get(name);
  if (std::holds_alternative<std::monostate>(value)) return std::string(absent);
  if (const std::string* text = std::get_if<std::string>(&value)) return *text;
  return Invalid(name, absl::StrCat(Is(value), ", not a string"));
}

absl::Status Settings::CheckNeutral(std::span<const NeutralSetting> settings) const {
  for (const NeutralSetting& setting : settings) {
    const SettingValue value = Get(setting.name);
    if (IsNeutral(value, setting.value)) continue;
    return Unsupported(setting.name, absl::StrCat(Is(value), "; supported is ",
                                                  std::string(NameOf(setting.value))));
  }
  return absl::OkStatus();
}

SettingValue JsonSettings::Get(std::string_view name) const {
  const nlohmann::json* value = FindValue(object_, name);
  if (value == nullptr) return std::monostate();
  if (value->is_boolean()) return value->get<bool>();
  if (value->is_string()) return value->get<std::string>();
  if (const std::optional<int64_t> number = JsonInt(*value)) return *number;
  if (value->is_number()) return value->get<double>();
  if (value->is_array() && value->empty()) return EmptyList();
  return OtherKind();
}

SettingValue GgufSettings::Get(std::string_view name) const {
  const std::string key = FullName(name);
  if (const auto value = file_.GetInt(key)) return *value;
  if (const auto value = file_.GetFloat(key)) return *value;
  if (const auto value = file_.GetBool(key)) return *value;
  if (const auto value = file_.GetString(key)) return std::string(value->substr(0, kMostShown));
  const std::vector<std::string_view> keys = file_.keys();
  if (std::find(keys.begin(), keys.end(), key) != keys.end()) return OtherKind();
  return std::monostate();
}

}  // namespace sirocco
