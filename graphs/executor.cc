#include "graphs/executor.h"

#include "absl/strings/str_cat.h"
#include "graphs/check.h"
#include "graphs/model_executor.h"

namespace sirocco {

absl::StatusOr<std::unique_ptr<Executor>> Executor::Create(Device& device,
                                                           const ModelDescriptor& descriptor,
                                                           const ModelWeights& weights,
                                                           const ExecutorOptions& options,
                                                           const Progress& progress) {
  absl::Status status = CheckDescriptor(descriptor);
  if (status.ok()) status = CheckOptions(descriptor, options);
  if (status.ok()) status = CheckWeights(descriptor, weights);
  if (status.ok() && device.prefill_as_decode() != options.prefill_as_decode) {
    status = absl::InvalidArgumentError(absl::StrCat(
        "prefill_as_decode is ", options.prefill_as_decode ? "true" : "false",
        "; allowed is what the device says, ", device.prefill_as_decode() ? "true" : "false"));
  }
  if (!status.ok()) return status;
  auto executor = std::make_unique<ModelExecutor>(device, descriptor, options);
  if (status = executor->Build(weights, progress); !status.ok()) return status;
  return executor;
}

}  // namespace sirocco
