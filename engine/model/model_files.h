// Opening what `model:` names: a GGUF file, or a Hugging Face directory. Opening reads and checks
// headers and configuration only; LoadWeights brings the tensors to a device.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/tensor_source.h"
#include "engine/model/weight_places.h"
#include "graphs/descriptor.h"
#include "graphs/weights.h"
#include "kernels/device.h"

namespace sirocco {

// generation_config.json: what a request gets where it sets nothing. Unset: the file is silent.
struct GenerationDefaults {
  std::optional<bool> do_sample;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<int32_t> no_repeat_ngram_size;
};

class Tokenizer;

// A model's files, opened and understood. Immutable; any thread.
struct ModelFiles {
  std::string name;    // the file's or folder's own name, without ".gguf": the default served name
  std::string format;  // "gguf" or "safetensors"
  ModelDescriptor descriptor;
  // By Hugging Face's names ("model.layers.0.self_attn.q_proj.weight", ...); a GGUF file's are
  // translated. What a file holds in another form is undone on reading (StoredTensor).
  std::shared_ptr<const TensorSource> tensors;
  // generation_config.json's, else config.json's (GGUF: eos_token_id), else empty: the tokenizer's.
  std::vector<int32_t> end_token_ids;
  GenerationDefaults generation;
};

// Errors are one line that names the file and the part: NOT_FOUND (no such file),
// PERMISSION_DENIED, INVALID_ARGUMENT (malformed), UNIMPLEMENTED (an architecture, a rope type, a
// tensor type, a setting that is not supported; it lists what is). All a model's tensors are
// checked to be there, with their shapes.
absl::StatusOr<ModelFiles> OpenModel(const std::string& path);

// What a path's configuration says of the model: of a directory's files only config.json is needed.
// Errors as OpenModel's.
absl::StatusOr<ModelDescriptor> OpenDescriptor(const std::string& path);

// The device memory that LoadWeights will take.
uint64_t WeightBytes(const ModelDescriptor& descriptor, const WeightTypes& types);

// Bytes done and in all; called often, from the calling thread.
using LoadProgress = std::function<void(uint64_t done, uint64_t total)>;

// Brings all weights to `device`: matrices as `types` says, norms and biases in float32. Blocks
// must be of types that the device computes from, else UNIMPLEMENTED.
absl::StatusOr<ModelWeights> LoadWeights(const ModelFiles& files, const WeightTypes& types,
                                         Device& device, const LoadProgress& progress);

}  // namespace sirocco
