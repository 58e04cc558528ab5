// The table of keys: the one place where a key's name, range, default and help stand.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/config/config.h"

namespace sirocco {

struct KeyEntry {
  std::string_view name;
  std::string_view help;
  // Reads a value's text into the configuration; an error's message says what is allowed.
  std::function<absl::Status(std::string_view text, Config& config)> read;
  // The value as text that `read` takes; "" where it is unset.
  std::function<std::string(const Config& config)> text;
};

const std::vector<KeyEntry>& KeyTable();

}  // namespace sirocco
