#include "engine/engine.h"

#include "absl/strings/str_cat.h"
#include "engine/engine_loop.h"

namespace sirocco {

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(std::unique_ptr<Executor> executor,
                                                      const Tokenizer* tokenizer,
                                                      EngineObserver* observer,
                                                      const EngineOptions& options) {
  if (executor == nullptr || observer == nullptr) {
    return absl::InvalidArgumentError("the engine needs an executor and an observer");
  }
  const int32_t chunk_limit = executor->options().prefill_chunk_size;
  if (options.prefill_chunk_size < 1 || options.prefill_chunk_size > chunk_limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefill_chunk_size: ", options.prefill_chunk_size, " is not in 1 ... ",
                     chunk_limit, ", what the executor was made for"));
  }
  if (!(options.itl_factor >= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("itl_factor: ", options.itl_factor, " is not at least 1"));
  }
  for (const auto& [client, weight] : options.client_weights) {
    if (weight > 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("client_weights: ", weight, " of ", client, " is not positive"));
  }
  const size_t groups = executor->options().kv_blocks.size();
  if (!options.groups.empty() && options.groups.size() != groups) {
    return absl::InvalidArgumentError(
        absl::StrCat("groups: ", options.groups.size(), " are named; the executor has ", groups));
  }
  if (options.max_queue_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_queue_size: ", options.max_queue_size, " is not positive"));
  }
  if (options.max_queue_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_queue_tokens: ", options.max_queue_tokens, " is negative"));
  }
  if (options.delivery_threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("delivery_threads: ", options.delivery_threads, " is not positive"));
  }
  auto engine = std::make_unique<EngineLoop>(std::move(executor), tokenizer, observer, options);
  engine->Start();
  return engine;
}

}  // namespace sirocco
