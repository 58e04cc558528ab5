// From a configuration to a model that serves, in two parts: opening checks all that can be wrong
// with files and settings in a moment; loading takes memory and time.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/observer.h"
#include "server/config/config.h"
#include "server/model/served_model.h"

namespace sirocco {

// "weights": bytes; "graphs": batch sizes captured. Called often, from the loading thread.
using StartProgress = std::function<void(std::string_view phase, uint64_t done, uint64_t total)>;

// Files, tokenizer, chat template and device. No weights are read yet. Errors are one line; by
// ExitStatusOf they end the program with 2 (files, configuration) or 1 (device).
absl::StatusOr<std::unique_ptr<ServedModel>> OpenServedModel(const Config& config);

// Plans the memory (and refuses what cannot fit, with the figures), loads weights, captures,
// starts the engine. `observer` outlives the model. Fastest on the process's first thread
// (huge_page_heap.h).
absl::Status StartServedModel(const Config& config, EngineObserver* observer,
                              const StartProgress& progress, ServedModel& model);

// The exit status of a program whose start failed so: 2 for files and configuration, 1 else.
int ExitStatusOf(const absl::Status& status);

}  // namespace sirocco
