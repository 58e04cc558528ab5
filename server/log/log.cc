#include "server/log/log.h"

#include <unistd.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace sirocco {
namespace {

constexpr std::string_view kNames[] = {"debug", "info", "warning", "error"};

std::atomic<int> least{static_cast<int>(LogLevel::kInfo)};
std::atomic<bool> json{false};

}  // namespace

void ConfigureLog(std::string_view level, std::string_view format) {
  for (int i = 0; i < 4; ++i) {
    if (level == kNames[i]) least = i;
  }
  json = format == "json";
}

void Log(LogLevel level, std::string_view message, LogFields fields) {
  if (static_cast<int>(level) < least) return;
  const std::string now =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  const std::string_view name = kNames[static_cast<int>(level)];
  std::string line;
  if (json) {
    nlohmann::ordered_json object = {{"time", now}, {"level", name}, {"message", message}};
    for (const auto& [key, value] : fields) object[std::string(key)] = value;
    // Replaces what is not UTF-8: a path may hold anything.
    line = object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  } else {
    line = absl::StrCat(now, " ", std::string(name), " ", std::string(message));
    for (const auto& [key, value] : fields) {
      absl::StrAppend(&line, " ", std::string(key), "=", value);
    }
  }
  line += '\n';
  // One write, so that lines of several threads do not mix.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace sirocco
