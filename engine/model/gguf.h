// GGUF, version 2 and 3, by mmap (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):
// typed metadata and the places of tensors. Everything in a file is checked before it is believed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/tensor_source.h"

namespace sirocco {

// Immutable; any thread. Views live as long as the file object.
class GgufFile {
 public:
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  virtual ~GgufFile() = default;

  virtual const std::string& path() const = 0;
  virtual uint32_t version() const = 0;

  // Metadata. nullopt: no such key, or a value of another kind (integers of all widths are one
  // kind, so are floats).
  virtual std::optional<int64_t> GetInt(std::string_view key) const = 0;
  virtual std::optional<double> GetFloat(std::string_view key) const = 0;
  virtual std::optional<bool> GetBool(std::string_view key) const = 0;
  virtual std::optional<std::string_view> GetString(std::string_view key) const = 0;
  virtual std::optional<std::vector<std::string_view>> GetStrings(std::string_view key) const = 0;
  virtual std::optional<std::vector<int64_t>> GetInts(std::string_view key) const = 0;
  virtual std::optional<std::vector<float>> GetFloats(std::string_view key) const = 0;
  // Elements of an array of any type: known before one is copied.
  virtual std::optional<uint64_t> GetArraySize(std::string_view key) const = 0;
  virtual std::vector<std::string_view> keys() const = 0;

  // By their names in the file ("blk.0.attn_q.weight"); shapes outermost first.
  virtual const std::vector<StoredTensor>& tensors() const = 0;
  // nullptr: none of this name.
  const StoredTensor* FindTensor(std::string_view name) const;
};

}  // namespace sirocco
