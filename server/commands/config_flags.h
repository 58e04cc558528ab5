// A flag for every key of the configuration, and --config.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace sirocco {

class ConfigFlags {
 public:
  // Adds the flags to a command, for as long as that lives.
  static std::shared_ptr<const ConfigFlags> AddTo(CLI::App& command);

  // After parsing.
  absl::StatusOr<Config> Load() const;

 private:
  std::string file_;
  std::map<std::string, std::string> values_;          // by key
  std::map<std::string, const CLI::Option*> options_;  // by key
};

}  // namespace sirocco
