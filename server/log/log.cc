#include "server/log/log.h"

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/log/lossy_writer.h"

namespace sirocco {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kNames[] = {"debug", "info", "warning", "error"};
constexpr int kStderr = 2;

std::atomic<int> least{static_cast<int>(LogLevel::kInfo)};
std::atomic<bool> json_lines{false};

// What is no UTF-8 is replaced: a path may hold anything.
std::string Dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json ToJson(const LogValue& value) {
  return std::visit([](const auto& it) { return Json(it); }, value);
}

std::string ToText(const LogValue& value) {
  const std::string* text = std::get_if<std::string>(&value);
  if (text == nullptr) return Dump(ToJson(value));
  const bool plain = !text->empty() && std::all_of(text->begin(), text->end(), [](char c) {
    return static_cast<unsigned char>(c) > ' ' && c != '"' && c != 0x7F;
  });
  return plain ? *text : Dump(*text);
}

}  // namespace

void ConfigureLog(std::string_view level, std::string_view format) {
  for (int i = 0; i < 4; ++i) {
    if (level == kNames[i]) least = i;
  }
  json_lines = format == "json";
}

std::string LogLine(bool json, std::string_view time, LogLevel level, std::string_view message,
                    const LogFields& fields) {
  const std::string_view name = kNames[static_cast<int>(level)];
  if (json) {
    Json object = {{"time", time}, {"level", name}, {"message", message}};
    for (const auto& [key, value] : fields) object[std::string(key)] = ToJson(value);
    return Dump(object);
  }
  std::string line =
      absl::StrCat(std::string(time), " ", std::string(name), " ", std::string(message));
  for (const auto& [key, value] : fields) {
    absl::StrAppend(&line, " ", std::string(key), "=", ToText(value));
  }
  return line;
}

void Log(LogLevel level, std::string_view message, const LogFields& fields) {
  if (static_cast<int>(level) < least) return;
  // Never destroyed: threads may log until the process ends.
  static auto* const writer = new LossyWriter(kStderr);
  const auto line = [](LogLevel of, std::string_view text, const LogFields& with) {
    const std::string now =
        absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
    return LogLine(json_lines, now, of, text, with);
  };
  writer->WriteLine(line(level, message, fields), [&](int64_t lost) {
    LogFields lines;
    lines.emplace_back("lines", lost);
    return line(LogLevel::kWarning, "log lines were lost: stderr was full", lines);
  });
}

}  // namespace sirocco
