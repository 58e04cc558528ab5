// A flag for every key of the configuration, and --config.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace sirocco {

class ConfigFlags {
 public:
  // Adds the flags to a command, for as long as that lives: all, or those of the keys named.
  static std::shared_ptr<const ConfigFlags> AddTo(CLI::App& command,
                                                  const std::vector<std::string>& keys = {});

  // After parsing.
  absl::StatusOr<Config> Load() const;
  // What --config names; empty: nothing.
  const std::string& file() const { return file_; }
  // The flags of keys that were given, "--model", ...
  std::vector<std::string> Given() const;

 private:
  std::string file_;
  bool cuda_portable_ = false;                         // shown by no --help
  std::map<std::string, std::string> values_;          // by key
  std::map<std::string, const CLI::Option*> options_;  // by key
};

}  // namespace sirocco
