#include "server/commands/offline.h"

#include "server/commands/report.h"
#include "server/log/log.h"
#include "server/model/load.h"

namespace sirocco {

absl::StatusOr<std::unique_ptr<ServedModel>> OpenOffline(const Config& config, WorkCounts* counts) {
  ConfigureLog(config.log_level, config.log_format);
  absl::StatusOr<std::unique_ptr<ServedModel>> model = OpenServedModel(config);
  if (!model.ok()) return model.status();
  ProgressBar bar;
  const auto show = [&](std::string_view phase, uint64_t done, uint64_t total) {
    bar.Update(phase, done, total);
  };
  if (absl::Status started = StartServedModel(config, counts, show, **model); !started.ok()) {
    return started;
  }
  return model;
}

}  // namespace sirocco
