// The only file that reads the environment.
#include "server/config/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/config/keys.h"

namespace sirocco {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

std::optional<std::string> Environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

std::string VariableOf(std::string_view key) {
  std::string name = absl::StrCat("SIROCCO_", std::string(key));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::toupper(c); });
  return name;
}

std::string FlagOf(std::string_view key) {
  return absl::StrCat("--", absl::StrReplaceAll(std::string(key), {{"_", "-"}}));
}

const KeyEntry* FindKey(std::string_view name) {
  for (const KeyEntry& key : KeyTable()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

absl::Status UnknownKey(std::string_view name, std::string_view where) {
  std::string_view nearest;
  size_t least = 4;  // farther than this is no slip of the keyboard
  for (const KeyEntry& key : KeyTable()) {
    const size_t distance = name.size() > 64 ? least : EditDistance(name, key.name);
    if (distance < least) {
      least = distance;
      nearest = key.name;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(where), ": unknown key '", std::string(name.substr(0, 64)), "'",
                   nearest.empty() ? "; 'sirocco serve --help' lists the keys"
                                   : absl::StrCat("; did you mean '", std::string(nearest), "'?")));
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat("configuration ", path, ": is a directory"));
  }
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    const std::string message = absl::StrCat("configuration ", path, ": ", std::strerror(errno));
    return errno == EACCES ? absl::PermissionDeniedError(message) : absl::NotFoundError(message);
  }
  std::string text(kMaxFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) {  // what was read until then would pass for all of it
    return absl::UnavailableError(absl::StrCat("configuration ", path, ": cannot be read"));
  }
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("configuration ", path, ": larger than ", kMaxFileBytes, " bytes"));
  }
  return text;
}

// The file's keys and values as text.
absl::StatusOr<std::map<std::string, std::string>> ReadYaml(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  const std::string where = absl::StrCat("configuration ", path);
  std::map<std::string, std::string> values;
  try {
    const YAML::Node root = YAML::Load(*text);
    if (root.IsNull()) return values;
    if (!root.IsMap()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": must be a map of key: value"));
    }
    for (const auto& entry : root) {
      if (!entry.first.IsScalar()) {
        return absl::InvalidArgumentError(absl::StrCat(where, ": a key is not a plain word"));
      }
      const std::string key = entry.first.Scalar();
      if (FindKey(key) == nullptr) return UnknownKey(key, where);
      if (!entry.second.IsScalar()) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, ": ", key, " must be a single value"));
      }
      if (!values.emplace(key, entry.second.Scalar()).second) {
        return absl::InvalidArgumentError(absl::StrCat(where, ": ", key, " stands there twice"));
      }
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": line ", error.mark.line + 1, ": ", error.msg));
  }
  return values;
}

absl::Status Set(const KeyEntry& key, std::string_view value, std::string_view source,
                 std::string_view where, Config& config) {
  const absl::Status status = key.read(value, config);
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        std::string(key.name), " (", std::string(where), "): '", std::string(value.substr(0, 200)),
        "' is not allowed; allowed: ", status.message()));
  }
  config.sources[std::string(key.name)] = std::string(source);
  return absl::OkStatus();
}

// Keys that need another.
absl::Status CheckTogether(const Config& config) {
  struct Need {
    std::string_view key;
    bool is_set;
    std::string_view needed;
    bool needed_is_set;
  };
  const bool certificate = !config.tls_certificate.empty();
  const Need needs[] = {
      {"tls_certificate", certificate, "tls_key", !config.tls_key.empty()},
      {"tls_key", !config.tls_key.empty(), "tls_certificate", certificate},
      {"tls_client_ca", !config.tls_client_ca.empty(), "tls_certificate", certificate},
      {"metrics_tls", config.metrics_tls, "tls_certificate", certificate},
  };
  for (const Need& need : needs) {
    if (!need.is_set || need.needed_is_set) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(need.key), " is set, but ", std::string(need.needed), " is not"));
  }
  return absl::OkStatus();
}

constexpr char kCompileVariable[] = "EOLE_TORCH_COMPILE";
constexpr char kModeVariable[] = "EOLE_COMPILE_MODE";

// What the variables say that this mode is from: the second one only where the first asks it.
std::string ModeSource(Mode mode) {
  const auto said = [](const char* variable, const char* missing) {
    const std::optional<std::string> value = Environment(variable);
    return value ? absl::StrCat(variable, " is ", *value)
                 : absl::StrCat(variable, " is not set, which means ", missing);
  };
  const std::string compile = said(kCompileVariable, "0");
  return mode == Mode::kEager ? compile : absl::StrCat(compile, ", ", said(kModeVariable, "2"));
}

}  // namespace

std::vector<ConfigKey> ConfigKeys() {
  const Config defaults;
  std::vector<ConfigKey> keys;
  for (const KeyEntry& key : KeyTable()) {
    keys.push_back({std::string(key.name), FlagOf(key.name), VariableOf(key.name),
                    key.text(defaults), std::string(key.help)});
  }
  return keys;
}

absl::StatusOr<Mode> ModeFromEnvironment() {
  return ModeFromVariables(Environment(kCompileVariable), Environment(kModeVariable));
}

absl::StatusOr<Config> LoadConfig(const std::string& file,
                                  const std::map<std::string, std::string>& flags) {
  Config config;
  std::map<std::string, std::string> in_file;
  if (!file.empty()) {
    absl::StatusOr<std::map<std::string, std::string>> values = ReadYaml(file);
    if (!values.ok()) return values.status();
    in_file = *std::move(values);
  }
  for (const auto& [name, value] : flags) {
    if (FindKey(name) == nullptr) return UnknownKey(name, "command line");
  }
  // A variable SIROCCO_X that is no key is left alone: Kubernetes makes such ones for a service
  // that is called sirocco.
  for (const KeyEntry& key : KeyTable()) {
    const std::string name(key.name);
    absl::Status status;
    if (auto flag = flags.find(name); flag != flags.end()) {
      status = Set(key, flag->second, "flag", FlagOf(name), config);
    } else if (auto variable = Environment(VariableOf(name)); variable.has_value()) {
      status = Set(key, *variable, "environment", VariableOf(name), config);
    } else if (auto entry = in_file.find(name); entry != in_file.end()) {
      status = Set(key, entry->second, "file", absl::StrCat("configuration ", file), config);
    } else {
      config.sources[name] = "default";
    }
    if (!status.ok()) return status;
  }
  if (absl::Status status = CheckTogether(config); !status.ok()) return status;
  absl::StatusOr<Mode> mode = ModeFromEnvironment();
  if (!mode.ok()) return mode.status();
  config.mode = *mode;
  config.sources["mode"] = ModeSource(*mode);
  return config;
}

std::string ToYaml(const Config& config) {
  std::string out;
  for (const KeyEntry& key : KeyTable()) {
    const std::string name(key.name);
    const std::string text = key.text(config);
    const auto source = config.sources.find(name);
    const std::string from = source == config.sources.end() ? "default" : source->second;
    if (text.empty()) {
      absl::StrAppend(&out, "# ", name, ": unset\n");
    } else {
      YAML::Emitter value;  // quotes what YAML would misread
      value << text;
      absl::StrAppend(&out, name, ": ", value.c_str(), "  # ", from, "\n");
    }
  }
  const auto source = config.sources.find("mode");
  absl::StrAppend(&out, "# mode: ", std::string(NameOf(config.mode)), "  # ",
                  source == config.sources.end() ? "default" : source->second, "\n");
  return out;
}

}  // namespace sirocco
