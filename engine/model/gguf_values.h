// Values as a GGUF file stores them, and a cursor that cannot leave the file.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace sirocco {

static_assert(std::endian::native == std::endian::little, "GGUF is read as little-endian");

// The numbers are the format's.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};
inline constexpr uint32_t kGgufTypes = 13;

// Bytes of one value; 0 for strings and arrays, whose size is in the file.
uint64_t BytesOf(GgufType type);

// A value, or an array of `count` of them, stored from `data` on; checked to lie in the file.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  bool is_array = false;
  uint64_t count = 1;
  const std::byte* data = nullptr;
};

// Of one value at `data`. nullopt: of another kind, or an integer beyond int64.
std::optional<int64_t> LoadInt(GgufType type, const std::byte* data);
std::optional<double> LoadFloat(GgufType type, const std::byte* data);
// A length of 64 bits, then the bytes.
std::string_view LoadString(const std::byte* data);

// Reads forward. After a read that would have left the file all reads give zeros and nothing:
// `ok` is asked once after a few of them.
class GgufCursor {
 public:
  explicit GgufCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }
  const std::byte* data() const { return bytes_.data() + offset_; }
  bool ok() const { return missing_ == 0; }
  // INVALID_ARGUMENT of the read that failed.
  absl::Status Truncated(const std::string& path, std::string_view what) const;

  void Skip(uint64_t bytes);
  template <typename T>
  T Read() {
    T value{};
    const std::byte* at = data();
    Skip(sizeof(T));
    if (ok()) std::memcpy(&value, at, sizeof(value));
    return value;
  }
  std::string_view ReadString();

 private:
  std::span<const std::byte> bytes_;
  uint64_t offset_ = 0;
  uint64_t missing_ = 0;  // bytes asked for by the read that failed
};

}  // namespace sirocco
