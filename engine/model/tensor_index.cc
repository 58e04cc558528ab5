#include "engine/model/tensor_index.h"

#include <algorithm>
#include <utility>

namespace sirocco {

TensorIndex::TensorIndex(std::vector<StoredTensor> tensors,
                         std::vector<std::shared_ptr<const void>> files)
    : tensors_(std::move(tensors)), files_(std::move(files)) {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
}

const StoredTensor* TensorIndex::Find(std::string_view name) const {
  const auto at = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const StoredTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

}  // namespace sirocco
