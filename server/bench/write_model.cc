#include "server/bench/write_model.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/hugging_face.h"
#include "engine/model/json_file.h"
#include "engine/model/random_block.h"
#include "engine/model/tensor_rows.h"
#include "engine/model/weight_places.h"
#include "server/bench/made_tokenizer.h"
#include "server/model/memory.h"

namespace sirocco {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr DType kType = DType::kBFloat16;

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
  bool random = false;
  float value = 0;  // of all elements, where they are not random
};

struct Shard {
  std::string file;
  std::vector<Tensor> tensors;
  uint64_t bytes = 0;
};

class OutputFile {
 public:
  explicit OutputFile(std::string path)
      : path_(std::move(path)), out_(path_, std::ios::binary | std::ios::trunc) {}

  absl::Status Write(std::span<const std::byte> bytes) {
    out_.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return Status();
  }
  absl::Status Write(const std::string& text) {
    return Write(std::as_bytes(std::span<const char>(text)));
  }
  absl::Status Close() {
    out_.close();
    return Status();
  }

 private:
  absl::Status Status() const {
    if (out_) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(path_, ": writing failed"));
  }

  const std::string path_;
  std::ofstream out_;
};

absl::Status WriteText(const std::string& path, const std::string& text) {
  OutputFile file(path);
  absl::Status status = file.Write(text);
  return status.ok() ? file.Close() : status;
}

std::vector<Tensor> TensorsOf(const ModelDescriptor& descriptor, bool norms_less_one) {
  ModelWeights weights;
  std::vector<Tensor> tensors;
  for (WeightPlace& place : WeightPlaces(descriptor, weights)) {
    Tensor tensor;
    uint64_t elements = 1;
    for (const int64_t extent : place.shape) elements *= static_cast<uint64_t>(extent);
    tensor.bytes = elements * BytesOf(kType);
    tensor.random = place.matrix != nullptr;
    const bool norm = absl::EndsWith(place.tensor, ".weight");
    tensor.value = norm ? (norms_less_one ? 0.0f : 1.0f) : 0.01f;
    tensor.name = std::move(place.tensor);
    tensor.shape = std::move(place.shape);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::vector<Shard> ShardsOf(std::vector<Tensor> tensors, uint64_t most) {
  std::vector<Shard> shards(1);
  for (Tensor& tensor : tensors) {
    if (!shards.back().tensors.empty() && shards.back().bytes + tensor.bytes > most) {
      shards.emplace_back();
    }
    shards.back().bytes += tensor.bytes;
    shards.back().tensors.push_back(std::move(tensor));
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].file = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
  }
  return shards;
}

// The length of the header, and the header, filled up so that the data begins at a multiple of 8.
std::string HeaderOf(const Shard& shard) {
  ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t offset = 0;
  for (const Tensor& tensor : shard.tensors) {
    header[tensor.name] = {{"dtype", "BF16"},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes}}};
    offset += tensor.bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

std::string IndexOf(const std::vector<Shard>& shards) {
  ordered_json map = ordered_json::object();
  uint64_t bytes = 0;
  for (const Shard& shard : shards) {
    bytes += shard.bytes;
    for (const Tensor& tensor : shard.tensors) map[tensor.name] = shard.file;
  }
  return ordered_json({{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}).dump(2);
}

// Nothing is overwritten, and nothing begun that cannot be finished.
absl::Status MakeDirectory(const std::string& directory, uint64_t bytes) {
  std::error_code error;
  if (fs::exists(directory, error)) {
    if (!fs::is_directory(directory, error) || !fs::is_empty(directory, error)) {
      return absl::FailedPreconditionError(absl::StrCat(
          directory, ": is there already; a model is written to a new or an empty directory"));
    }
  } else if (!error && !fs::create_directories(directory, error) && !error) {
    error = std::make_error_code(std::errc::not_a_directory);
  }
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat(directory, ": cannot be made: ", error.message()));
  }
  const fs::space_info space = fs::space(directory, error);
  if (!error && space.available < bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(directory, ": the weights take ",
                                                     BytesForPeople(bytes), ", and ",
                                                     BytesForPeople(space.available), " are free"));
  }
  return absl::OkStatus();
}

class Writer {
 public:
  Writer(int64_t width, uint64_t seed, uint64_t total, const LoadProgress& progress)
      : memory_(RandomBlock::kBytes),
        block_(memory_.data(), kType, width, seed),
        total_(total),
        progress_(progress) {}

  absl::Status Write(const std::string& directory, const Shard& shard) {
    OutputFile file(absl::StrCat(directory, "/", shard.file));
    absl::Status status = file.Write(HeaderOf(shard));
    for (const Tensor& tensor : shard.tensors) {
      if (status.ok()) status = Write(tensor, file);
      if (!status.ok()) return status;
      done_ += tensor.bytes;
      if (progress_) progress_(done_, total_);
    }
    return status.ok() ? file.Close() : status;
  }

 private:
  absl::Status Write(const Tensor& tensor, OutputFile& file) {
    if (!tensor.random) {
      std::vector<std::byte> values(tensor.bytes);
      StoreAs(std::vector<float>(tensor.bytes / BytesOf(kType), tensor.value), kType,
              values.data());
      return file.Write(values);
    }
    for (uint64_t done = 0; done < tensor.bytes;) {
      const std::span<const std::byte> values = block_.Next(tensor.bytes - done);
      if (absl::Status status = file.Write(values); !status.ok()) return status;
      done += values.size();
    }
    return absl::OkStatus();
  }

  std::vector<std::byte> memory_;
  RandomBlock block_;
  const uint64_t total_;
  const LoadProgress& progress_;
  uint64_t done_ = 0;
};

}  // namespace

absl::StatusOr<WrittenModel> WriteRandomModel(const WriteModelOptions& options,
                                              const LoadProgress& progress) {
  const absl::StatusOr<nlohmann::json> config = ReadJsonObject(options.config, kMaxConfigBytes);
  if (!config.ok()) return config.status();
  const absl::StatusOr<const Family*> family = FamilyFromConfig(*config, options.config);
  if (!family.ok()) return family.status();
  const absl::StatusOr<ModelDescriptor> descriptor =
      DescriptorFromConfig(*config, options.config, **family);
  if (!descriptor.ok()) return descriptor.status();
  const absl::StatusOr<MadeTokenizer> tokenizer = MakeTokenizerFiles(descriptor->vocab_size);
  if (!tokenizer.ok()) return tokenizer.status();
  std::ifstream in(options.config, std::ios::binary);
  const std::string config_text(std::istreambuf_iterator<char>(in), {});

  const std::vector<Shard> shards =
      ShardsOf(TensorsOf(*descriptor, (*family)->stored_norms_less_one), options.shard_bytes);
  WrittenModel written;
  for (const Shard& shard : shards) written.weight_bytes += shard.bytes;
  written.parameters = written.weight_bytes / BytesOf(kType);
  written.shards = static_cast<int>(shards.size());

  const std::string& directory = options.directory;
  absl::Status status = MakeDirectory(directory, written.weight_bytes);
  Writer writer(std::max(descriptor->hidden_size, descriptor->intermediate_size), options.seed,
                written.weight_bytes, progress);
  for (const Shard& shard : shards) {
    if (status.ok()) status = writer.Write(directory, shard);
  }
  const std::pair<const char*, std::string> files[] = {
      {"model.safetensors.index.json", IndexOf(shards)},
      {"tokenizer.json", tokenizer->tokenizer_json},
      {"tokenizer_config.json", tokenizer->tokenizer_config_json},
      {"config.json", config_text}};
  for (const auto& [name, text] : files) {
    if (status.ok()) status = WriteText(absl::StrCat(directory, "/", name), text);
  }
  if (!status.ok()) return status;
  return written;
}

}  // namespace sirocco
