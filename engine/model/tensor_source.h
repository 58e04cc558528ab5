// Named tensors in files, whatever the format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "kernels/dtype.h"

namespace sirocco {

// Element types as files store them.
enum class StoredType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K
};
std::string_view NameOf(StoredType type);  // "F32", ..., "Q6_K"

// nullopt: devices have no such type, and values are dequantised when they are read.
std::optional<DType> DTypeOf(StoredType type);
BlockLayout LayoutOf(StoredType type);

// What tensors' bytes are read from. Any thread.
class ByteReader {
 public:
  virtual ~ByteReader() = default;
  // Fills `out` with the bytes from `offset` on. What cannot be read, or is not there any more, is
  // a status of one line that says where.
  virtual absl::Status Read(uint64_t offset, std::span<std::byte> out) const = 0;
};

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;          // outermost first: [rows, cols] of a matrix
  const ByteReader* reader = nullptr;  // of the file; as long as the source lives
  uint64_t offset = 0;                 // in the file
  uint64_t bytes = 0;                  // was checked to lie inside it
  std::string file;                    // its path, for people
  // GGUF's llama keeps the rows of q and k for interleaved rotary pairs; heads to unpermute, or 0.
  int32_t permuted_heads = 0;
  float added = 0;  // to each value on reading: where the file holds a norm's weight less 1
};

// "F32 [384, 64]", for people.
std::string DescribeTensor(const StoredTensor& tensor);

// The bytes a tensor of this type and shape takes; nullopt: not representable, a dimension is not
// positive, or rows are not whole blocks.
std::optional<uint64_t> StoredBytes(StoredType type, std::span<const int64_t> shape);

// INVALID_ARGUMENT names two tensors of the file `path` that share their name or bytes.
absl::Status CheckDistinct(const std::string& path, const std::vector<StoredTensor>& tensors);

// Immutable; any thread.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const std::vector<StoredTensor>& tensors() const = 0;
  virtual const StoredTensor* Find(std::string_view name) const = 0;  // nullptr: none
};

}  // namespace sirocco
