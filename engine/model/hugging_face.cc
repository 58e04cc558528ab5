#include "engine/model/hugging_face.h"

#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/fused_tensors.h"
#include "engine/model/generation_config.h"
#include "engine/model/json_file.h"
#include "engine/model/mapped_file.h"
#include "engine/model/safetensors.h"
#include "engine/model/tensor_index.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

using nlohmann::json;

// A file of the directory with this extension; empty: none.
std::string FindByExtension(const std::string& directory, std::string_view extension) {
  std::error_code error;
  std::string first;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::filesystem::path& path = entry->path();
    if (path.extension() != extension) continue;
    if (first.empty() || path.string() < first) first = path.string();
  }
  return first;
}

// NOT_FOUND: the directory has no `missing`; says what to do where that can be seen.
absl::Status Missing(const std::string& directory, std::string_view missing) {
  std::string hint;
  if (const std::string gguf = FindByExtension(directory, ".gguf"); !gguf.empty()) {
    hint = absl::StrCat("; to serve its GGUF file pass the file itself: ", gguf);
  } else if (const std::string bin = FindByExtension(directory, ".bin"); !bin.empty()) {
    hint = "; weights are read from safetensors and GGUF files, not from .bin files";
  }
  return absl::NotFoundError(
      absl::StrCat(directory, ": the directory has no ", std::string(missing), hint));
}

// config.json, read and understood.
struct ModelConfig {
  std::string path;
  json values;
  const Family* family = nullptr;
  ModelDescriptor descriptor;
};

absl::StatusOr<ModelConfig> ReadConfig(const std::string& directory) {
  ModelConfig config;
  config.path = directory + "/config.json";
  if (!IsPresent(config.path)) return Missing(directory, "config.json");
  absl::StatusOr<json> values = ReadJsonObject(config.path, kMaxConfigBytes);
  if (!values.ok()) return values.status();
  config.values = *std::move(values);
  const absl::StatusOr<const Family*> family = FamilyFromConfig(config.values, config.path);
  if (!family.ok()) return family.status();
  config.family = *family;
  absl::StatusOr<ModelDescriptor> descriptor =
      DescriptorFromConfig(config.values, config.path, **family);
  if (!descriptor.ok()) return descriptor.status();
  config.descriptor = *std::move(descriptor);
  return config;
}

absl::StatusOr<std::shared_ptr<const TensorSource>> OpenWeights(const std::string& directory) {
  const std::string single = directory + "/model.safetensors";
  if (IsPresent(single)) return OpenSafetensors(single);
  if (IsPresent(directory + "/model.safetensors.index.json"))
    return OpenShardedSafetensors(directory);
  return Missing(directory, "model.safetensors or model.safetensors.index.json");
}

// The tensors as the model has them: fused ones apart, each norm's weight with the 1 that the file
// leaves out.
absl::StatusOr<std::shared_ptr<const TensorSource>> AsTheModelHasThem(
    const Family& family, const ModelDescriptor& descriptor,
    std::shared_ptr<const TensorSource> source) {
  if (family.fused.empty() && family.renamings.empty() && !family.stored_norms_less_one) {
    return source;
  }
  std::vector<StoredTensor> renamed = source->tensors();
  for (StoredTensor& tensor : renamed) {
    for (const Renaming& renaming : family.renamings) {
      const size_t at = tensor.name.find(renaming.from);
      if (at != std::string::npos) tensor.name.replace(at, renaming.from.size(), renaming.to);
    }
  }
  absl::StatusOr<std::vector<StoredTensor>> tensors =
      SplitFused(descriptor, family.fused, std::move(renamed));
  if (!tensors.ok()) return tensors.status();
  for (StoredTensor& tensor : *tensors) {
    if (family.stored_norms_less_one && absl::EndsWith(tensor.name, "norm.weight")) {
      tensor.added = 1;
    }
  }
  return std::make_shared<TensorIndex>(*std::move(tensors),
                                       std::vector<std::shared_ptr<const void>>{std::move(source)});
}

}  // namespace

absl::StatusOr<ModelDescriptor> OpenHuggingFaceDescriptor(const std::string& directory) {
  absl::StatusOr<ModelConfig> config = ReadConfig(directory);
  if (!config.ok()) return config.status();
  return std::move(config->descriptor);
}

absl::StatusOr<ModelFiles> OpenHuggingFace(const std::string& directory) {
  absl::StatusOr<ModelConfig> config = ReadConfig(directory);
  if (!config.ok()) return config.status();
  ModelFiles files;
  files.descriptor = std::move(config->descriptor);
  const int32_t vocab_size = files.descriptor.vocab_size;
  const std::string generation_path = directory + "/generation_config.json";
  if (IsPresent(generation_path)) {
    const absl::StatusOr<json> generation = ReadJsonObject(generation_path, kMaxConfigBytes);
    if (!generation.ok()) return generation.status();
    absl::StatusOr<GenerationDefaults> defaults =
        ReadGenerationDefaults(*generation, generation_path);
    if (!defaults.ok()) return defaults.status();
    files.generation = *std::move(defaults);
    absl::StatusOr<std::vector<int32_t>> ends =
        ReadEndTokenIds(*generation, generation_path, vocab_size);
    if (!ends.ok()) return ends.status();
    files.end_token_ids = *std::move(ends);
  }
  if (files.end_token_ids.empty()) {
    absl::StatusOr<std::vector<int32_t>> ends =
        ReadEndTokenIds(config->values, config->path, vocab_size);
    if (!ends.ok()) return ends.status();
    files.end_token_ids = *std::move(ends);
  }

  absl::StatusOr<std::shared_ptr<const TensorSource>> tensors = OpenWeights(directory);
  if (!tensors.ok()) return tensors.status();
  tensors = AsTheModelHasThem(*config->family, files.descriptor, *std::move(tensors));
  if (!tensors.ok()) return tensors.status();
  files.tensors = *std::move(tensors);
  absl::Status complete = CheckTensors(files.descriptor, *files.tensors, directory);
  if (!complete.ok()) return complete;
  return files;
}

}  // namespace sirocco
