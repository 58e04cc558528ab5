#include "engine/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/checked.h"
#include "engine/model/file_error.h"
#include "engine/model/mapped_file.h"

namespace sirocco {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read as little-endian");

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

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kDouble,
  kValueTypes,
};

// Bytes of one value; 0 for strings and arrays, whose size is in the file.
constexpr uint64_t kValueBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

// A value or an array of them: `count` values of `type` stored from `data` on, already checked.
struct Value {
  ValueType type;
  bool is_array;
  uint64_t count;
  const std::byte* data;
};

template <typename T>
T Load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(value));
  return value;
}

std::optional<int64_t> LoadInt(ValueType type, const std::byte* data) {
  switch (type) {
    case kUint8:
      return Load<uint8_t>(data);
    case kInt8:
      return Load<int8_t>(data);
    case kUint16:
      return Load<uint16_t>(data);
    case kInt16:
      return Load<int16_t>(data);
    case kUint32:
      return Load<uint32_t>(data);
    case kInt32:
      return Load<int32_t>(data);
    case kUint64: {
      const uint64_t value = Load<uint64_t>(data);
      if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    case kInt64:
      return Load<int64_t>(data);
    default:
      return std::nullopt;
  }
}

std::optional<double> LoadFloat(ValueType type, const std::byte* data) {
  if (type == kFloat) return Load<float>(data);
  if (type == kDouble) return Load<double>(data);
  return std::nullopt;
}

std::string_view LoadString(const std::byte* data) {
  return {reinterpret_cast<const char*>(data + 8), static_cast<size_t>(Load<uint64_t>(data))};
}

// Reads forward; nothing is read that does not lie inside the file.
class Cursor {
 public:
  explicit Cursor(const MappedFile& file) : path_(file.path()), bytes_(file.bytes()) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }
  const std::byte* data() const { return bytes_.data() + offset_; }

  absl::Status Skip(uint64_t bytes, std::string_view what) {
    if (bytes > left()) {
      return InvalidFile(
          path_, absl::StrCat("truncated: ", std::string(what), " at byte ", offset_, " needs ",
                              bytes, " bytes, the file has ", left(), " left"));
    }
    offset_ += bytes;
    return absl::OkStatus();
  }

  template <typename T>
  absl::Status Read(std::string_view what, T* value) {
    const std::byte* at = data();
    if (absl::Status status = Skip(sizeof(T), what); !status.ok()) return status;
    *value = Load<T>(at);
    return absl::OkStatus();
  }

  absl::Status ReadString(std::string_view what, std::string_view* text) {
    const std::byte* at = data();
    uint64_t length;
    if (absl::Status status = Read(what, &length); !status.ok()) return status;
    if (absl::Status status = Skip(length, what); !status.ok()) return status;
    *text = LoadString(at);
    return absl::OkStatus();
  }

 private:
  const std::string& path_;
  std::span<const std::byte> bytes_;
  uint64_t offset_ = 0;
};

// ggml's numbers of types. Those that are known but not supported are named in the error.
struct TensorType {
  uint32_t number;
  const char* name;
  std::optional<StoredType> stored;
};
constexpr TensorType kTensorTypes[] = {
    {0, "F32", StoredType::kF32},   {1, "F16", StoredType::kF16},    {2, "Q4_0", StoredType::kQ4_0},
    {3, "Q4_1", StoredType::kQ4_1}, {6, "Q5_0", std::nullopt},       {7, "Q5_1", std::nullopt},
    {8, "Q8_0", StoredType::kQ8_0}, {9, "Q8_1", std::nullopt},       {10, "Q2_K", std::nullopt},
    {11, "Q3_K", std::nullopt},     {12, "Q4_K", std::nullopt},      {13, "Q5_K", std::nullopt},
    {14, "Q6_K", std::nullopt},     {15, "Q8_K", std::nullopt},      {16, "IQ2_XXS", std::nullopt},
    {17, "IQ2_XS", std::nullopt},   {18, "IQ3_XXS", std::nullopt},   {19, "IQ1_S", std::nullopt},
    {20, "IQ4_NL", std::nullopt},   {21, "IQ3_S", std::nullopt},     {22, "IQ2_S", std::nullopt},
    {23, "IQ4_XS", std::nullopt},   {24, "I8", std::nullopt},        {25, "I16", std::nullopt},
    {26, "I32", std::nullopt},      {27, "I64", std::nullopt},       {28, "F64", std::nullopt},
    {29, "IQ1_M", std::nullopt},    {30, "BF16", StoredType::kBF16}, {34, "TQ1_0", std::nullopt},
    {35, "TQ2_0", std::nullopt},    {39, "MXFP4", std::nullopt},
};

absl::StatusOr<StoredType> TensorTypeOf(uint32_t number, const std::string& path,
                                        std::string_view tensor) {
  std::string name = "unknown";
  for (const TensorType& type : kTensorTypes) {
    if (type.number != number) continue;
    if (type.stored) return *type.stored;
    name = type.name;
  }
  return UnsupportedFile(path,
                         absl::StrCat("tensor ", Shown(tensor), " has type ", name, " (", number,
                                      "); supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1"));
}

class GgufFileImpl final : public GgufFile {
 public:
  explicit GgufFileImpl(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}

  absl::Status Parse();

  const std::string& path() const override { return file_->path(); }
  uint32_t version() const override { return version_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }

  std::optional<int64_t> GetInt(std::string_view key) const override {
    const Value* value = FindScalar(key);
    return value ? LoadInt(value->type, value->data) : std::nullopt;
  }

  std::optional<double> GetFloat(std::string_view key) const override {
    const Value* value = FindScalar(key);
    return value ? LoadFloat(value->type, value->data) : std::nullopt;
  }

  std::optional<bool> GetBool(std::string_view key) const override {
    const Value* value = FindScalar(key);
    if (!value || value->type != kBool) return std::nullopt;
    return Load<uint8_t>(value->data) != 0;
  }

  std::optional<std::string_view> GetString(std::string_view key) const override {
    const Value* value = FindScalar(key);
    if (!value || value->type != kString) return std::nullopt;
    return LoadString(value->data);
  }

  std::optional<std::vector<std::string_view>> GetStrings(std::string_view key) const override;
  std::optional<std::vector<int64_t>> GetInts(std::string_view key) const override;
  std::optional<std::vector<float>> GetFloats(std::string_view key) const override;
  std::optional<uint64_t> GetArraySize(std::string_view key) const override {
    const Value* value = FindArray(key);
    return value ? std::optional(value->count) : std::nullopt;
  }
  std::vector<std::string_view> keys() const override;

 private:
  absl::Status ParseKey(Cursor& cursor);
  absl::Status ParseValues(Cursor& cursor, std::string_view key, Value* value);
  absl::Status CheckKeys();
  absl::Status ParseAlignment();
  absl::Status ParseTensor(Cursor& cursor);
  absl::Status PlaceTensors(uint64_t header_end);
  absl::Status Invalid(std::string_view what) const { return InvalidFile(path(), what); }

  const Value* Find(std::string_view key) const;
  const Value* FindScalar(std::string_view key) const {
    const Value* value = Find(key);
    return value && !value->is_array ? value : nullptr;
  }
  const Value* FindArray(std::string_view key) const {
    const Value* value = Find(key);
    return value && value->is_array ? value : nullptr;
  }

  std::unique_ptr<MappedFile> file_;
  uint32_t version_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<std::pair<std::string_view, Value>> values_;  // sorted by key
  std::vector<StoredTensor> tensors_;                       // in the file's order
};

absl::Status GgufFileImpl::Parse() {
  Cursor cursor(*file_);
  uint32_t magic;
  if (absl::Status status = cursor.Read("the magic", &magic); !status.ok()) return status;
  if (magic != 0x46554747) return Invalid("is not a GGUF file (it does not begin with 'GGUF')");
  if (absl::Status status = cursor.Read("the version", &version_); !status.ok()) return status;
  if (version_ != 2 && version_ != 3) {
    const bool swapped = version_ == 2u << 24 || version_ == 3u << 24;
    return UnsupportedFile(
        path(), swapped ? std::string("is a big-endian GGUF file; supported is "
                                      "little-endian")
                        : absl::StrCat("is GGUF version ", version_, "; supported are 2 and 3"));
  }
  uint64_t tensor_count, key_count;
  if (absl::Status status = cursor.Read("the tensor count", &tensor_count); !status.ok()) {
    return status;
  }
  if (absl::Status status = cursor.Read("the key count", &key_count); !status.ok()) return status;
  if (key_count > std::min(kMaxKeys, cursor.left() / kMinKeyBytes)) {
    return Invalid(absl::StrCat("claims ", key_count, " keys, which the file is too small for, or ",
                                "more than ", kMaxKeys));
  }
  if (tensor_count > std::min(kMaxTensors, cursor.left() / kMinTensorBytes)) {
    return Invalid(absl::StrCat("claims ", tensor_count,
                                " tensors, which the file is too small for, or more than ",
                                kMaxTensors));
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

absl::Status GgufFileImpl::ParseKey(Cursor& cursor) {
  std::string_view key;
  if (absl::Status status = cursor.ReadString("a key", &key); !status.ok()) return status;
  if (key.empty() || key.size() > kMaxNameBytes) {
    return Invalid(
        absl::StrCat("a key has ", key.size(), " bytes; allowed are 1 to ", kMaxNameBytes));
  }
  const std::string what = absl::StrCat("the value of ", Shown(key));
  uint32_t type;
  Value value{};
  if (absl::Status status = cursor.Read(what, &type); !status.ok()) return status;
  value.count = 1;
  if (type == kArray) {
    value.is_array = true;
    if (absl::Status status = cursor.Read(what, &type); !status.ok()) return status;
    if (absl::Status status = cursor.Read(what, &value.count); !status.ok()) return status;
    if (type == kArray) {
      return UnsupportedFile(path(), absl::StrCat(what, " is an array of arrays; supported are ",
                                                  "arrays of numbers, bools and strings"));
    }
  }
  if (type >= kValueTypes) {
    return Invalid(absl::StrCat(what, " has the unknown type ", type));
  }
  value.type = static_cast<ValueType>(type);
  value.data = cursor.data();
  if (absl::Status status = ParseValues(cursor, what, &value); !status.ok()) return status;
  values_.emplace_back(key, value);
  return absl::OkStatus();
}

// Moves past the values, checking that they lie inside the file.
absl::Status GgufFileImpl::ParseValues(Cursor& cursor, std::string_view what, Value* value) {
  if (value->type == kString) {
    // A string takes 8 bytes at least: `count` is bounded before the loop begins.
    const std::optional<uint64_t> least = CheckedMul<uint64_t>(value->count, 8);
    if (!least || *least > cursor.left()) {
      return Invalid(absl::StrCat(std::string(what), " claims ", value->count,
                                  " strings, more than the file holds"));
    }
    std::string_view text;
    for (uint64_t i = 0; i < value->count; ++i) {
      if (absl::Status status = cursor.ReadString(what, &text); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  const std::optional<uint64_t> bytes =
      CheckedMul<uint64_t>(value->count, kValueBytes[value->type]);
  if (!bytes || *bytes > cursor.left()) {
    return Invalid(absl::StrCat(std::string(what), " claims ", value->count,
                                " values, more than the file holds"));
  }
  if (value->type == kBool) {
    for (uint64_t i = 0; i < value->count; ++i) {
      if (Load<uint8_t>(value->data + i) > 1) {
        return Invalid(absl::StrCat(std::string(what), " is a bool other than 0 and 1"));
      }
    }
  }
  return cursor.Skip(*bytes, what);
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

absl::Status GgufFileImpl::ParseTensor(Cursor& cursor) {
  StoredTensor tensor;
  std::string_view name;
  if (absl::Status status = cursor.ReadString("a tensor's name", &name); !status.ok()) {
    return status;
  }
  if (name.empty() || name.size() > kMaxNameBytes) {
    return Invalid(absl::StrCat("a tensor's name has ", name.size(), " bytes; allowed are 1 to ",
                                kMaxNameBytes));
  }
  const std::string what = absl::StrCat("tensor ", Shown(name));
  uint32_t dimensions;
  if (absl::Status status = cursor.Read(what, &dimensions); !status.ok()) return status;
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    return Invalid(
        absl::StrCat(what, " has ", dimensions, " dimensions; allowed are 1 to ", kMaxDimensions));
  }
  tensor.shape.resize(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    // Stored innermost first; one beyond int64 turns negative, which StoredBytes refuses.
    int64_t& dimension = tensor.shape[dimensions - 1 - i];
    if (absl::Status status = cursor.Read(what, &dimension); !status.ok()) return status;
  }
  uint32_t type;
  if (absl::Status status = cursor.Read(what, &type); !status.ok()) return status;
  if (absl::Status status = cursor.Read(what, &tensor.offset); !status.ok()) return status;
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
  std::vector<const StoredTensor*> sorted;
  sorted.reserve(tensors_.size());
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
    tensor.data = file_->bytes().data() + *begin;
    tensor.file = path();
    sorted.push_back(&tensor);
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const StoredTensor* a, const StoredTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->offset + sorted[i - 1]->bytes > sorted[i]->offset) {
      return Invalid(absl::StrCat("tensors ", Shown(sorted[i - 1]->name), " and ",
                                  Shown(sorted[i]->name), " overlap"));
    }
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const StoredTensor* a, const StoredTensor* b) { return a->name < b->name; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->name == sorted[i]->name) {
      return Invalid(absl::StrCat("has the tensor ", Shown(sorted[i]->name), " twice"));
    }
  }
  return absl::OkStatus();
}

const Value* GgufFileImpl::Find(std::string_view key) const {
  const auto at = std::lower_bound(
      values_.begin(), values_.end(), key,
      [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  return at != values_.end() && at->first == key ? &at->second : nullptr;
}

std::optional<std::vector<std::string_view>> GgufFileImpl::GetStrings(std::string_view key) const {
  const Value* value = FindArray(key);
  if (!value || value->type != kString) return std::nullopt;
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
  const Value* value = FindArray(key);
  if (!value) return std::nullopt;
  std::vector<int64_t> ints;
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int64_t> number =
        LoadInt(value->type, value->data + i * kValueBytes[value->type]);
    if (!number) return std::nullopt;
    if (i == 0) ints.reserve(value->count);
    ints.push_back(*number);
  }
  return ints;
}

std::optional<std::vector<float>> GgufFileImpl::GetFloats(std::string_view key) const {
  const Value* value = FindArray(key);
  if (!value) return std::nullopt;
  std::vector<float> floats;
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<double> number =
        LoadFloat(value->type, value->data + i * kValueBytes[value->type]);
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
  return gguf;
}

}  // namespace sirocco
