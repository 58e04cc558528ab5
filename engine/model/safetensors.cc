#include "engine/model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/checked.h"
#include "engine/model/file_error.h"
#include "engine/model/json_file.h"
#include "engine/model/mapped_file.h"
#include "engine/model/tensor_index.h"

namespace sirocco {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxDimensions = 8;
constexpr size_t kMaxFiles = 4096;
// In all files: the largest models in use have about 92,000.
constexpr size_t kMaxTensors = 131072;

absl::StatusOr<StoredType> TypeOf(const json& entry, const std::string& path,
                                  const std::string& what) {
  const json* type = FindValue(entry, "dtype");
  if (!type || !type->is_string()) return InvalidFile(path, absl::StrCat(what, " has no dtype"));
  const std::string& name = type->get_ref<const std::string&>();
  for (const StoredType stored : {StoredType::kF32, StoredType::kF16, StoredType::kBF16}) {
    if (name == NameOf(stored)) return stored;
  }
  return UnsupportedFile(
      path, absl::StrCat(what, " has the type ", Shown(name), "; supported are F32, F16, BF16"));
}

absl::StatusOr<std::vector<int64_t>> IntsOf(const json& entry, std::string_view key, size_t most,
                                            const std::string& path, const std::string& what) {
  const json* list = FindValue(entry, key);
  std::vector<int64_t> ints;
  bool valid = list && list->is_array() && list->size() <= most;
  for (size_t i = 0; valid && i < list->size(); ++i) {
    const std::optional<int64_t> number = JsonInt((*list)[i]);
    valid = number && *number >= 0;
    if (valid) ints.push_back(*number);
  }
  if (valid) return ints;
  return InvalidFile(path, absl::StrCat(what, ": ", std::string(key), " is no list of at most ",
                                        most, " integers >= 0"));
}

// One entry of a header; `data` is what follows the header, at `data_begin` in the file.
absl::StatusOr<StoredTensor> ParseTensor(const std::string& name, const json& entry,
                                         const MappedFile& file, uint64_t data_begin) {
  const std::string& path = file.path();
  const std::string what = absl::StrCat("tensor ", Shown(name));
  if (!entry.is_object())
    return InvalidFile(path, absl::StrCat(what, " is described by no object"));
  StoredTensor tensor;
  tensor.name = name;
  tensor.file = path;
  const absl::StatusOr<StoredType> type = TypeOf(entry, path, what);
  if (!type.ok()) return type.status();
  tensor.type = *type;
  absl::StatusOr<std::vector<int64_t>> shape = IntsOf(entry, "shape", kMaxDimensions, path, what);
  if (!shape.ok()) return shape.status();
  tensor.shape = *std::move(shape);
  const absl::StatusOr<std::vector<int64_t>> offsets = IntsOf(entry, "data_offsets", 2, path, what);
  if (!offsets.ok()) return offsets.status();

  const std::optional<uint64_t> bytes = StoredBytes(tensor.type, tensor.shape);
  if (!bytes) {
    return InvalidFile(path, absl::StrCat(what, " has the shape ", DescribeTensor(tensor),
                                          ": dimensions must be positive, the size below 2^63"));
  }
  tensor.bytes = *bytes;
  const uint64_t data_bytes = file.bytes().size() - data_begin;
  if (offsets->size() != 2 || (*offsets)[0] > (*offsets)[1] ||
      static_cast<uint64_t>((*offsets)[1]) > data_bytes) {
    return InvalidFile(path, absl::StrCat(what, ": data_offsets must be begin <= end <= ",
                                          data_bytes, ", the bytes after the header"));
  }
  const auto begin = static_cast<uint64_t>((*offsets)[0]);
  const uint64_t span = static_cast<uint64_t>((*offsets)[1]) - begin;  // checked above
  if (span != tensor.bytes) {
    return InvalidFile(path, absl::StrCat(what, " takes ", tensor.bytes, " bytes as ",
                                          DescribeTensor(tensor), ", data_offsets span ", span));
  }
  tensor.offset = data_begin + begin;  // inside the file
  tensor.reader = &file;
  return tensor;
}

absl::StatusOr<std::vector<StoredTensor>> ParseFile(const MappedFile& file) {
  const std::string& path = file.path();
  const std::span<const std::byte> bytes = file.bytes();
  constexpr uint64_t kSizeBytes = sizeof(uint64_t);
  uint64_t header_bytes = 0;
  if (bytes.size() < kSizeBytes) {
    return InvalidFile(path, absl::StrCat("has ", bytes.size(), " bytes, too few for safetensors"));
  }
  std::memcpy(&header_bytes, bytes.data(), kSizeBytes);
  const std::optional<uint64_t> header_end = CheckedAdd(kSizeBytes, header_bytes);
  if (!header_end || *header_end > bytes.size()) {
    return InvalidFile(path, absl::StrCat("truncated, or no safetensors: claims a header of ",
                                          header_bytes, " bytes, the file has ", bytes.size()));
  }
  const uint64_t data_begin = *header_end;
  const std::string_view text = file.text().substr(kSizeBytes, header_bytes);
  const absl::StatusOr<json> header = ParseJsonObject(text, path, kMaxHeaderBytes);
  if (!header.ok()) return header.status();

  std::vector<StoredTensor> tensors;
  if (header->size() > kMaxTensors) {
    return InvalidFile(
        path, absl::StrCat("claims ", header->size(), " tensors; allowed are ", kMaxTensors));
  }
  std::optional<uint64_t> used = 0;  // nullopt: beyond 64 bits, as only tensors that overlap take
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<StoredTensor> tensor = ParseTensor(name, entry, file, data_begin);
    if (!tensor.ok()) return tensor.status();
    if (used) used = CheckedAdd(*used, tensor->bytes);
    tensors.push_back(*std::move(tensor));
  }
  if (absl::Status status = CheckDistinct(path, tensors); !status.ok()) return status;
  if (used != bytes.size() - data_begin) {
    return InvalidFile(path, absl::StrCat("holds ", bytes.size() - data_begin,
                                          " bytes after the header, its tensors take ",
                                          used ? absl::StrCat(*used) : "more"));
  }
  return tensors;
}

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// An object of each tensor's file, as the index says.
absl::StatusOr<json> ReadIndex(const std::string& path) {
  absl::StatusOr<json> index = ReadJsonObject(path, kMaxIndexBytes);
  if (!index.ok()) return index.status();
  const auto map = index->find("weight_map");
  if (map == index->end() || !map->is_object() || map->empty()) {
    return InvalidFile(path, "has no weight_map of tensors' files");
  }
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      return InvalidFile(path,
                         absl::StrCat("weight_map: the file of ", Shown(tensor), " is ",
                                      file.is_string() ? Shown(file.get_ref<const std::string&>())
                                                       : std::string("no string"),
                                      "; allowed are plain file names"));
    }
  }
  return json(std::move(*map));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TensorSource>> OpenSafetensors(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::vector<StoredTensor>> tensors = ParseFile(**file);
  if (!tensors.ok()) return tensors.status();
  std::vector<std::shared_ptr<const void>> files;
  files.push_back(*std::move(file));
  return std::make_shared<TensorIndex>(*std::move(tensors), std::move(files));
}

absl::StatusOr<std::shared_ptr<const TensorSource>> OpenShardedSafetensors(
    const std::string& directory) {
  const std::string index_path = directory + "/model.safetensors.index.json";
  const absl::StatusOr<json> index = ReadIndex(index_path);
  if (!index.ok()) return index.status();
  std::set<std::string> names;
  for (const json& file : *index) names.insert(file.get_ref<const std::string&>());
  if (names.size() > kMaxFiles) {
    return InvalidFile(index_path,
                       absl::StrCat("names ", names.size(), " files; allowed are ", kMaxFiles));
  }

  std::vector<StoredTensor> all;
  std::vector<std::shared_ptr<const void>> files;
  for (const std::string& name : names) {
    absl::StatusOr<std::unique_ptr<MappedFile>> file =
        MappedFile::Open(absl::StrCat(directory, "/", name));
    if (!file.ok()) return file.status();
    absl::StatusOr<std::vector<StoredTensor>> tensors = ParseFile(**file);
    if (!tensors.ok()) return tensors.status();
    for (StoredTensor& tensor : *tensors) {
      const auto said = index->find(tensor.name);
      if (said == index->end() || *said != name) {
        return InvalidFile(tensor.file,
                           absl::StrCat("holds the tensor ", Shown(tensor.name), ", which ",
                                        "model.safetensors.index.json does not place there"));
      }
      all.push_back(std::move(tensor));
    }
    files.push_back(*std::move(file));
    if (all.size() > kMaxTensors) {
      return InvalidFile(index_path, absl::StrCat("names more than ", kMaxTensors, " tensors"));
    }
  }
  auto source = std::make_shared<TensorIndex>(std::move(all), std::move(files));
  for (const auto& [tensor, file] : index->items()) {
    if (source->Find(tensor) != nullptr) continue;
    return InvalidFile(index_path, absl::StrCat("places the tensor ", Shown(tensor), " in ",
                                                Shown(file.get_ref<const std::string&>()),
                                                ", which does not hold it"));
  }
  return source;
}

}  // namespace sirocco
