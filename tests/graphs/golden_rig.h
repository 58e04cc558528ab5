// A golden's model on a device, and its logits by teacher forcing.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_files.h"
#include "graphs/executor.h"
#include "tests/testing/golden.h"

namespace sirocco {

using Tokens = std::vector<int32_t>;
using Logits = std::vector<std::vector<float>>;  // [position][vocab]

// In one mode and type. What fails is reported to the test, and `executor` stays null.
struct GoldenRig {
  // `path`: a golden's folder, or a GGUF file of it. `keep_blocks`: matrices that the file holds in
  // blocks stay so. `choices`: of experts, another rig's Choices; empty: its own. `kv`: the KV
  // cache's type; none: `dtype`.
  GoldenRig(absl::StatusOr<std::unique_ptr<Device>> made, const std::string& path, Mode mode,
            DType dtype, bool keep_blocks = false, const std::vector<int32_t>& choices = {},
            std::optional<DType> kv = std::nullopt);

  // Those of experts that its rows have made, as ExpertTrace has them; empty: no experts.
  std::vector<int32_t> Choices() const;

  std::unique_ptr<Device> device;
  ModelFiles files;
  ModelWeights weights;
  std::unique_ptr<Buffer> trace;  // where there are experts
  std::unique_ptr<Executor> executor;
};

absl::Status StartWith(Executor& executor, int32_t lane, const Tokens& tokens, int32_t count);

// Every position's logits by decode steps on given tokens: before each step the lane is set to
// the tokens so far, so that the step continues them and not what it sampled. All sequences go in
// one batch, which shrinks as they end.
absl::StatusOr<std::vector<Logits>> ForceByDecoding(Executor& executor,
                                                    const std::vector<Tokens>& sequences);

// Every position's logits by a prefill of all tokens up to it, one sequence.
absl::StatusOr<Logits> ForceByPrefill(Executor& executor, const Tokens& tokens);

// The prompts with what was generated after them.
std::vector<Tokens> FullSequences(const Golden& golden);

}  // namespace sirocco
