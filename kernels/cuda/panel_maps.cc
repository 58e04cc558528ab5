#include "kernels/cuda/panel_maps.h"

#include <cstddef>

namespace sirocco::cuda {
namespace {

// Five matrices a layer of some fifty, and four buffers of activations with up to 64 rows.
constexpr int kPlaceBits = 10;
constexpr size_t kPlaces = size_t{1} << kPlaceBits;
constexpr size_t kProbes = 8;

// The driver's function that makes them.
using EncodeTensor = decltype(&cuTensorMapEncodeTiled);

EncodeTensor FindEncodeTensor() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             12000, cudaEnableDefault, &result);
  return error == cudaSuccess && result == cudaDriverEntryPointSuccess
             ? reinterpret_cast<EncodeTensor>(found)
             : nullptr;
}

cudaError_t Make(EncodeTensor encode, const PanelMatrix& matrix, CUtensorMap& map) {
  const cuuint64_t size[2] = {static_cast<cuuint64_t>(matrix.columns),
                              static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t stride[1] = {static_cast<cuuint64_t>(matrix.columns) * 2};
  const cuuint32_t box[2] = {kPanelColumns, static_cast<cuuint32_t>(matrix.box_rows)};
  const cuuint32_t step[2] = {1, 1};
  const CUresult result =
      encode(&map,
             matrix.dtype == DType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                              : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
             2, const_cast<void*>(matrix.data), size, stride, box, step,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

size_t FirstPlace(const PanelMatrix& matrix) {
  constexpr uint64_t kMix = 0x9e3779b97f4a7c15u;  // 2^64 over the golden ratio
  const uint64_t key =
      reinterpret_cast<uintptr_t>(matrix.data) + static_cast<uint64_t>(matrix.rows);
  return key * kMix >> (64 - kPlaceBits);
}

}  // namespace

cudaError_t PanelMaps::Find(const PanelMatrix& matrix, CUtensorMap& map) {
  // Found while kernels are loaded, not while a stream is captured.
  static const EncodeTensor encode = FindEncodeTensor();
  if (encode == nullptr) return cudaErrorNotSupported;
  if (places_.empty()) places_.resize(kPlaces);
  const size_t first = FirstPlace(matrix);
  Place* place = nullptr;
  for (size_t i = 0; i < kProbes && place == nullptr; ++i) {
    Place& at = places_[(first + i) % kPlaces];
    if (at.matrix == matrix) {
      map = at.map;
      return cudaSuccess;
    }
    if (at.matrix.rows == 0) place = &at;
  }
  const cudaError_t error = Make(encode, matrix, map);
  if (error != cudaSuccess) return error;
  if (place == nullptr) place = &places_[(first + replaced_++ % kProbes) % kPlaces];
  *place = {matrix, map};
  return cudaSuccess;
}

}  // namespace sirocco::cuda
