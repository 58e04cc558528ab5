// Matrices as the tensor copy engine is told of them, kept: those of weights never change, and
// those of activations only with the number of rows.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "kernels/dtype.h"

namespace sirocco::cuda {

// A row-major matrix, which begins at a multiple of 16 bytes, as do its rows, and the boxes that it
// is copied in.
struct PanelMatrix {
  const void* data = nullptr;  // [rows, columns] 16-bit elements of this type
  DType dtype = DType::kBFloat16;
  int32_t rows = 0;
  int32_t columns = 0;
  int32_t box_rows = 0;  // by kMapColumns (tensor_map.h)
  friend bool operator==(const PanelMatrix&, const PanelMatrix&) = default;
};

// For one thread.
class PanelMaps {
 public:
  // The map of `matrix`; what is beyond the matrix comes as zeros, and a box's rows are swizzled by
  // 128 bytes. It says nothing but what `matrix` says, so one that was made stays true. Made where
  // it is not there; allocates the first time alone. cudaErrorNotSupported: the driver has no such
  // maps; cudaErrorInvalidValue: it does not take this matrix.
  cudaError_t Find(const PanelMatrix& matrix, CUtensorMap& map);

 private:
  struct Place {
    PanelMatrix matrix;  // of no rows: free
    CUtensorMap map;
  };

  std::vector<Place> places_;
  uint32_t replaced_ = 0;
};

}  // namespace sirocco::cuda
