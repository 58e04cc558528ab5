// Log lines on stderr: text for people, or one JSON object a line for clusters. Any thread. A
// stderr that is closed or full loses lines and stops nothing.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace sirocco {

enum class LogLevel : int { kDebug, kInfo, kWarning, kError };

// Words of the configuration (`log_level`, `log_format`); call before other threads start.
void ConfigureLog(std::string_view level, std::string_view format);

using LogFields = std::initializer_list<std::pair<std::string_view, std::string>>;

void Log(LogLevel level, std::string_view message, LogFields fields = {});

inline void LogInfo(std::string_view message, LogFields fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(std::string_view message, LogFields fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(std::string_view message, LogFields fields = {}) {
  Log(LogLevel::kError, message, fields);
}

}  // namespace sirocco
