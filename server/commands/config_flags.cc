#include "server/commands/config_flags.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sirocco {

std::shared_ptr<const ConfigFlags> ConfigFlags::AddTo(CLI::App& command,
                                                      const std::vector<std::string>& keys) {
  auto flags = std::make_shared<ConfigFlags>();
  command.add_option("--config", flags->file_,
                     "YAML file of key: value; flags and SIROCCO_KEY variables go before it");
  for (const ConfigKey& key : ConfigKeys()) {
    if (!keys.empty() && std::find(keys.begin(), keys.end(), key.name) == keys.end()) continue;
    const std::string help =
        key.value.empty() ? key.help : absl::StrCat(key.help, " [", key.value, "]");
    flags->options_[key.name] =
        command.add_option(key.flag, flags->values_[key.name], help)->group("Configuration");
  }
  command.add_flag("--cuda-portable", flags->cuda_portable_)->group("");
  return flags;
}

std::vector<std::string> ConfigFlags::Given() const {
  std::vector<std::string> given;
  for (const auto& [key, option] : options_) {
    if (option->count() > 0) given.push_back(option->get_name());
  }
  return given;
}

absl::StatusOr<Config> ConfigFlags::Load() const {
  std::map<std::string, std::string> given;
  for (const auto& [key, option] : options_) {
    if (option->count() > 0) given[key] = values_.at(key);
  }
  absl::StatusOr<Config> config = LoadConfig(file_, given);
  if (config.ok()) config->cuda_portable = cuda_portable_;
  return config;
}

}  // namespace sirocco
