#include "engine/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/checked.h"
#include "engine/model/file_error.h"
#include "engine/model/gguf_values.h"
#include "engine/model/mapped_file.h"

namespace sirocco {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"

// A file's claims are bounded by these before anything is allocated for them. Models in use have
// tens of keys and some thousands of tensors.
constexpr uint64_t kMaxKeys = 65536;
constexpr uint64_t kMaxTensors = 65536;
constexpr uint64_t kMaxNameBytes = 65535;
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr int64_t kMinAlignment = 8;
constexpr int64_t kMaxAlignment = 1 << 20;
// The least bytes of a key with its value, and of a tensor's entry.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

// Types by ggml's numbers. Those that are known but not supported are named in the error.
absl::StatusOr<StoredType> TensorTypeOf(uint32_t number, const std::string& path,
                                        std::string_view tensor) {
  struct Supported {
    uint32_t number;
    StoredType type;
  };
  static constexpr Supported kSupported[] = {
      {0, StoredType::kF32},   {1, StoredType::kF16},   {2, StoredType::kQ4_0},
      {3, StoredType::kQ4_1},  {6, StoredType::kQ5_0},  {7, StoredType::kQ5_1},
      {8, StoredType::kQ8_0},  {12, StoredType::kQ4_K}, {13, StoredType::kQ5_K},
      {14, StoredType::kQ6_K}, {30, StoredType::kBF16}};
  for (const Supported& entry : kSupported) {
    if (entry.number == number) return entry.type;
  }
  struct Known {
    uint32_t number;
    const char* name;
  };
  static constexpr Known kKnown[] = {
      {9, "Q8_1"},    {10, "Q2_K"},  {11, "Q3_K"},  {15, "Q8_K"},   {16, "IQ2_XXS"},
      {17, "IQ2_XS"}, {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"},  {18, "IQ3_XXS"},
      {20, "IQ4_NL"}, {24, "I8"},    {25, "I16"},   {23, "IQ4_XS"}, {26, "I32"},
      {27, "I64"},    {28, "F64"},   {34, "TQ1_0"}, {29, "IQ1_M"},  {35, "TQ2_0"},
      {39, "MXFP4"}};
  std::string name = "type";
  for (const Known& entry : kKnown) {
    if (entry.number == number) name = entry.name;
  }
  return UnsupportedFile(
      path, absl::StrCat("tensor ", Shown(tensor), " is stored as ", name, " (ggml's ", number,
                         "); supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, "
                         "Q5_K, Q6_K"));
}

class GgufFileImpl final : public GgufFile {
 public:
  explicit GgufFileImpl(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}

  absl::Status Parse();
  void ForgetPages() const { file_->ForgetPages(); }

  const std::string& path() const override { return file_->path(); }
  uint32_t version() const override { return version_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }

  std::optional<int64_t> GetInt(std::string_view key) const override {
    const GgufValue* value = FindScalar(key);
    return value ? LoadInt(value->type, value->data) : std::nullopt;
  }

  std::optional<double> GetFloat(std::string_view key) const override {
    const GgufValue* value = FindScalar(key);
    return value ? LoadFloat(value->type, value->data) : std::nullopt;
  }

  std::optional<bool> GetBool(std::string_view key) const override {
    const GgufValue* value = FindScalar(key);
    if (!value || value->type != GgufType::kBool) return std::nullopt;
    return std::to_integer<int>(*value->data) != 0;
  }

  std::optional<std::string_view> GetString(std::string_view key) const override {
    const GgufValue* value = FindScalar(key);
    if (!value || value->type != GgufType::kString) return std::nullopt;
    return LoadString(value->data);
  }

  std::optional<std::vector<std::string_view>> GetStrings(std::string_view key) const override;
  std::optional<std::vector<int64_t>> GetInts(std::string_view key) const override;
  std::optional<std::vector<float>> GetFloats(std::string_view key) const override;
  std::optional<uint64_t> GetArraySize(std::string_view key) const override {
    const GgufValue* value = FindArray(key);
    return value ? std::optional(value->count) : std::nullopt;
  }
  std::vector<std::string_view> keys() const override;

 private:
  absl::Status ParseKey(GgufCursor& cursor);
  absl::Status WrongVersion() const;
  // Moves past the values, checking that they lie inside the file.
  absl::Status SkipValues(GgufCursor& cursor, std::string_view what, const GgufValue& value);
  absl::Status CheckKeys();
  absl::Status ParseAlignment();
  absl::Status ParseTensor(GgufCursor& cursor);
  absl::Status PlaceTensors(uint64_t header_end);
  absl::Status Invalid(std::string_view what) const { return InvalidFile(path(), what); }

  const GgufValue* Find(std::string_view key) const;
  const GgufValue* FindScalar(std::string_view key) const {
    const GgufValue* value = Find(key);
    return value && !value->is_array ? value : nullptr;
  }
  const GgufValue* FindArray(std::string_view key) const {
    const GgufValue* value = Find(key);
    return value && value->is_array ? value : nullptr;
  }

  std::unique_ptr<MappedFile> file_;
  uint32_t version_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<std::pair<std::string_view, GgufValue>> values_;  // sorted by key
  std::vector<StoredTensor> tensors_;                           // in the file's order
};

absl::Status GgufFileImpl::Parse() {
  GgufCursor cursor(file_->bytes());
  const uint32_t magic = cursor.Read<uint32_t>();
  if (cursor.ok() && magic != kMagic) {
    return Invalid("is not a GGUF file (it does not begin with 'GGUF')");
  }
  version_ = cursor.Read<uint32_t>();
  if (cursor.ok() && version_ != 2 && version_ != 3) return WrongVersion();
  const uint64_t tensor_count = cursor.Read<uint64_t>();
  const uint64_t key_count = cursor.Read<uint64_t>();
  if (!cursor.ok()) return cursor.Truncated(path(), "the header");
  if (key_count > std::min(kMaxKeys, cursor.left() / kMinKeyBytes)) {
    return Invalid(absl::StrCat("claims ", key_count, " keys; allowed are ", kMaxKeys,
                                ", and no more than fit into its size"));
  }
  if (tensor_count > std::min(kMaxTensors, cursor.left() / kMinTensorBytes)) {
    return Invalid(absl::StrCat("claims ", tensor_count, " tensors; allowed are ", kMaxTensors,
                                ", and no more than fit into its size"));
  }
  values_.reserve(key_count);
  for (uint64_t i = 0; i < key_count; ++i) {
    if (absl::Status status = ParseKey(cursor); !status.ok()) return status;
  }
  if (absl::Status status = CheckKeys(); !status.ok()) return status;
  if (absl::Status status = ParseAlignment(); !status.ok()) return status;
  tensors_.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) {
    if (absl::Status status = ParseTensor(cursor); !status.ok()) return status;
  }
  return PlaceTensors(cursor.offset());
}

absl::Status GgufFileImpl::WrongVersion() const {
  if (version_ == 2u << 24 || version_ == 3u << 24) {
    return UnsupportedFile(path(), "is a big-endian GGUF file; supported is little-endian");
  }
  return UnsupportedFile(path(),
                         absl::StrCat("is GGUF version ", version_, "; supported are 2 and 3"));
}

absl::Status GgufFileImpl::ParseKey(GgufCursor& cursor) {
  const std::string_view key = cursor.ReadString();
  if (!cursor.ok()) return cursor.Truncated(path(), "a key");
  if (key.empty() || key.size() > kMaxNameBytes) {
    return Invalid(
        absl::StrCat("a key has ", key.size(), " bytes; allowed are 1 to ", kMaxNameBytes));
  }
  const std::string what = absl::StrCat("the value of ", Shown(key));
  GgufValue value;
  constexpr uint32_t kArray = static_cast<uint32_t>(GgufType::kArray);
  uint32_t type = cursor.Read<uint32_t>();
  if (cursor.ok() && type == kArray) {
    value.is_array = true;
    type = cursor.Read<uint32_t>();
    value.count = cursor.Read<uint64_t>();
  }
  if (!cursor.ok()) return cursor.Truncated(path(), what);
  if (type >= kGgufTypes) return Invalid(absl::StrCat(what, " has the unknown type ", type));
  if (type == kArray) {
    return UnsupportedFile(path(), absl::StrCat(what, " is an array of arrays; supported are ",
                                                "arrays of numbers, bools and strings"));
  }
  value.type = static_cast<GgufType>(type);
  value.data = cursor.data();
  if (absl::Status status = SkipValues(cursor, what, value); !status.ok()) return status;
  values_.emplace_back(key, value);
  return absl::OkStatus();
}

absl::Status GgufFileImpl::SkipValues(GgufCursor& cursor, std::string_view what,
                                      const GgufValue& value) {
  const bool strings = value.type == GgufType::kString;
  const uint64_t least = strings ? sizeof(uint64_t) : BytesOf(value.type);  // of one value
  const std::optional<uint64_t> bytes = CheckedMul(value.count, least);
  if (value.is_array && (!bytes || *bytes > cursor.left())) {
    return Invalid(absl::StrCat(std::string(what), " claims ", value.count,
                                " elements, more than the file holds"));
  }
  if (strings) {
    for (uint64_t i = 0; i < value.count && cursor.ok(); ++i) cursor.ReadString();
  } else {
    cursor.Skip(*bytes);
  }
  if (!cursor.ok()) return cursor.Truncated(path(), what);
  for (uint64_t i = 0; value.type == GgufType::kBool && i < value.count; ++i) {
    if (std::to_integer<int>(value.data[i]) > 1) {
      return Invalid(absl::StrCat(std::string(what), " is a bool other than 0 and 1"));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufFileImpl::CheckKeys() {
  std::sort(values_.begin(), values_.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto twice =
      std::adjacent_find(values_.begin(), values_.end(),
                         [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice == values_.end()) return absl::OkStatus();
  return Invalid(absl::StrCat("has the key ", Shown(twice->first), " twice"));
}

absl::Status GgufFileImpl::ParseAlignment() {
  constexpr std::string_view kKey = "general.alignment";
  if (!Find(kKey)) return absl::OkStatus();
  const std::optional<int64_t> alignment = GetInt(kKey);
  if (!alignment || *alignment < kMinAlignment || *alignment > kMaxAlignment ||
      !std::has_single_bit(static_cast<uint64_t>(*alignment))) {
    return Invalid(absl::StrCat(
        "general.alignment ", alignment ? absl::StrCat("is ", *alignment) : "is no integer",
        "; allowed are powers of two from ", kMinAlignment, " to ", kMaxAlignment));
  }
  alignment_ = static_cast<uint64_t>(*alignment);
  return absl::OkStatus();
}

absl::Status GgufFileImpl::ParseTensor(GgufCursor& cursor) {
  const std::string_view name = cursor.ReadString();
  const uint32_t dimensions = cursor.Read<uint32_t>();
  if (!cursor.ok()) return cursor.Truncated(path(), "a tensor's name");
  if (name.empty() || name.size() > kMaxNameBytes) {
    return Invalid(absl::StrCat("a tensor's name has ", name.size(), " bytes; allowed are 1 to ",
                                kMaxNameBytes));
  }
  const std::string what = absl::StrCat("tensor ", Shown(name));
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    return Invalid(
        absl::StrCat(what, " has ", dimensions, " dimensions; allowed are 1 to ", kMaxDimensions));
  }
  StoredTensor tensor;
  tensor.shape.resize(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    // Stored innermost first; one beyond int64 turns negative, which StoredBytes refuses.
    tensor.shape[dimensions - 1 - i] = cursor.Read<int64_t>();
  }
  const uint32_t type = cursor.Read<uint32_t>();
  tensor.offset = cursor.Read<uint64_t>();
  if (!cursor.ok()) return cursor.Truncated(path(), what);
  const absl::StatusOr<StoredType> stored = TensorTypeOf(type, path(), name);
  if (!stored.ok()) return stored.status();
  tensor.type = *stored;
  const std::optional<uint64_t> bytes = StoredBytes(tensor.type, tensor.shape);
  if (!bytes) {
    return Invalid(absl::StrCat(what, " has the shape ", DescribeTensor(tensor),
                                ": dimensions must be positive, rows whole blocks of ",
                                LayoutOf(tensor.type).elements, ", the size below 2^63"));
  }
  tensor.bytes = *bytes;
  tensor.name = std::string(name);
  tensors_.push_back(std::move(tensor));
  return absl::OkStatus();
}

// Turns offsets into places in the file: aligned, inside it, distinct.
absl::Status GgufFileImpl::PlaceTensors(uint64_t header_end) {
  if (tensors_.empty()) return absl::OkStatus();
  const uint64_t size = file_->bytes().size();
  const uint64_t data_begin = CheckedAlignUp(header_end, alignment_).value_or(size);
  for (StoredTensor& tensor : tensors_) {
    if (tensor.offset % alignment_ != 0) {
      return Invalid(absl::StrCat("tensor ", Shown(tensor.name), " has the offset ", tensor.offset,
                                  ", no multiple of the alignment ", alignment_));
    }
    const std::optional<uint64_t> begin = CheckedAdd(data_begin, tensor.offset);
    if (!begin || !FitsIn(*begin, tensor.bytes, size)) {
      return Invalid(absl::StrCat("tensor ", Shown(tensor.name), " at offset ", tensor.offset,
                                  " with ", tensor.bytes, " bytes runs past the file's end"));
    }
    tensor.offset = *begin;
    tensor.reader = file_.get();
    tensor.file = path();
  }
  return CheckDistinct(path(), tensors_);
}

const GgufValue* GgufFileImpl::Find(std::string_view key) const {
  const auto at = std::lower_bound(
      values_.begin(), values_.end(), key,
      [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  return at != values_.end() && at->first == key ? &at->second : nullptr;
}

std::optional<std::vector<std::string_view>> GgufFileImpl::GetStrings(std::string_view key) const {
  const GgufValue* value = FindArray(key);
  if (!value || value->type != GgufType::kString) return std::nullopt;
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  const std::byte* data = value->data;
  for (uint64_t i = 0; i < value->count; ++i) {
    strings.push_back(LoadString(data));
    data += 8 + strings.back().size();
  }
  return strings;
}

std::optional<std::vector<int64_t>> GgufFileImpl::GetInts(std::string_view key) const {
  const GgufValue* value = FindArray(key);
  if (!value) return std::nullopt;
  std::vector<int64_t> ints;
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int64_t> number =
        LoadInt(value->type, value->data + i * BytesOf(value->type));
    if (!number) return std::nullopt;
    if (i == 0) ints.reserve(value->count);
    ints.push_back(*number);
  }
  return ints;
}

std::optional<std::vector<float>> GgufFileImpl::GetFloats(std::string_view key) const {
  const GgufValue* value = FindArray(key);
  if (!value) return std::nullopt;
  std::vector<float> floats;
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<double> number =
        LoadFloat(value->type, value->data + i * BytesOf(value->type));
    if (!number) return std::nullopt;
    if (i == 0) floats.reserve(value->count);
    floats.push_back(static_cast<float>(*number));
  }
  return floats;
}

std::vector<std::string_view> GgufFileImpl::keys() const {
  std::vector<std::string_view> keys;
  keys.reserve(values_.size());
  for (const auto& [key, value] : values_) keys.push_back(key);
  return keys;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  auto gguf = std::make_unique<GgufFileImpl>(*std::move(file));
  if (absl::Status status = gguf->Parse(); !status.ok()) return status;
  // Long lists were passed over, which not every user of the file reads.
  gguf->ForgetPages();
  return gguf;
}

const StoredTensor* GgufFile::FindTensor(std::string_view name) const {
  for (const StoredTensor& tensor : tensors()) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

}  // namespace sirocco
