// Writes GGUF files for tests: well-formed ones, and by its fields' freedom malformed ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace sirocco {

// ggml's numbers of tensor types, and the format's of metadata types.
inline constexpr uint32_t kGgmlF32 = 0, kGgmlF16 = 1, kGgmlQ4_0 = 2, kGgmlQ4_1 = 3, kGgmlQ5_0 = 6,
                          kGgmlQ5_1 = 7, kGgmlQ8_0 = 8, kGgmlQ4K = 12, kGgmlQ5K = 13, kGgmlQ6K = 14,
                          kGgmlBF16 = 30;
inline constexpr uint32_t kMetaUint8 = 0, kMetaInt8 = 1, kMetaUint16 = 2, kMetaInt16 = 3,
                          kMetaUint32 = 4, kMetaInt32 = 5, kMetaFloat32 = 6, kMetaBool = 7,
                          kMetaString = 8, kMetaArray = 9, kMetaUint64 = 10, kMetaInt64 = 11,
                          kMetaFloat64 = 12;

template <typename T>
std::string Raw(T value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

inline std::string RawString(std::string_view text) {
  return Raw<uint64_t>(text.size()) + std::string(text);
}

class GgufWriter {
 public:
  // A value's bytes as the format has them.
  GgufWriter& Key(std::string_view key, uint32_t type, const std::string& value) {
    keys_ += RawString(key) + Raw(type) + value;
    ++key_count;
    return *this;
  }
  GgufWriter& String(std::string_view key, std::string_view value) {
    return Key(key, kMetaString, RawString(value));
  }
  GgufWriter& Uint32(std::string_view key, uint32_t value) {
    return Key(key, kMetaUint32, Raw(value));
  }
  GgufWriter& Float32(std::string_view key, float value) {
    return Key(key, kMetaFloat32, Raw(value));
  }
  GgufWriter& Array(std::string_view key, uint32_t type, uint64_t count,
                    const std::string& elements) {
    return Key(key, kMetaArray, Raw(type) + Raw(count) + elements);
  }

  // `shape` outermost first, as this project has it; the file has it the other way round.
  GgufWriter& Tensor(std::string_view name, const std::vector<uint64_t>& shape, uint32_t type,
                     const std::string& data) {
    const uint64_t offset = Aligned(data_.size());
    data_.resize(offset, '\0');
    data_ += data;
    return TensorEntry(name, shape, type, offset);
  }
  // The entry alone.
  GgufWriter& TensorEntry(std::string_view name, const std::vector<uint64_t>& shape, uint32_t type,
                          uint64_t offset) {
    tensors_ += RawString(name) + Raw<uint32_t>(static_cast<uint32_t>(shape.size()));
    for (auto dimension = shape.rbegin(); dimension != shape.rend(); ++dimension) {
      tensors_ += Raw(*dimension);
    }
    tensors_ += Raw(type) + Raw(offset);
    ++tensor_count;
    return *this;
  }

  std::string Bytes() const {
    std::string bytes =
        magic + Raw(version) + Raw(tensor_count) + Raw(key_count) + keys_ + tensors_;
    bytes.resize(Aligned(bytes.size()), '\0');
    return bytes + data_;
  }

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t tensor_count = 0;
  uint64_t key_count = 0;
  uint64_t alignment = 32;

 private:
  uint64_t Aligned(uint64_t offset) const {
    return (offset + alignment - 1) / alignment * alignment;
  }

  std::string keys_;
  std::string tensors_;
  std::string data_;
};

}  // namespace sirocco
