// Log lines on stderr: text for people, or one JSON object a line for clusters. Any thread. A
// stderr that is closed or full loses lines and stops nothing; the next line that gets through says
// how many were lost.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace sirocco {

enum class LogLevel : int { kDebug, kInfo, kWarning, kError };

// Words of the configuration (`log_level`, `log_format`); call before other threads start.
void ConfigureLog(std::string_view level, std::string_view format);

// Text, which may hold anything, or a number.
using LogValue = std::variant<std::string, int64_t, double>;
using LogFields = std::vector<std::pair<std::string_view, LogValue>>;

// The line without its end. In text a value that is no plain word stands in quotes, escaped: what a
// client has sent cannot begin a line.
std::string LogLine(bool json, std::string_view time, LogLevel level, std::string_view message,
                    const LogFields& fields);

void Log(LogLevel level, std::string_view message, const LogFields& fields = {});

inline void LogInfo(std::string_view message, const LogFields& fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(std::string_view message, const LogFields& fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(std::string_view message, const LogFields& fields = {}) {
  Log(LogLevel::kError, message, fields);
}

}  // namespace sirocco
