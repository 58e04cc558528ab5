// A TensorSource over tensors that lie in files.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "engine/model/tensor_source.h"

namespace sirocco {

// Immutable; any thread.
class TensorIndex final : public TensorSource {
 public:
  // Names must be distinct. `files` are what the tensors' bytes live in, kept open.
  TensorIndex(std::vector<StoredTensor> tensors, std::vector<std::shared_ptr<const void>> files);

  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  const StoredTensor* Find(std::string_view name) const override;

 private:
  std::vector<StoredTensor> tensors_;  // sorted by name
  std::vector<std::shared_ptr<const void>> files_;
};

}  // namespace sirocco
