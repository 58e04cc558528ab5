#include "server/bench/floor.h"

#include <algorithm>
#include <cstddef>

#include "graphs/executor.h"

namespace sirocco {
namespace {

constexpr double kH200Stream = 4.6e12;  // read-only, measured at 2 GiB

}  // namespace

uint64_t MlpWeightBytes(const LayerWeights& layer, double share_of_experts) {
  const uint64_t bytes = BytesOf(layer.gate) + BytesOf(layer.up) + BytesOf(layer.down);
  if (layer.router.rows == 0) return bytes;
  return BytesOf(layer.router) +
         static_cast<uint64_t>(share_of_experts * static_cast<double>(bytes));
}

uint64_t FloorWeightBytes(const ModelWeights& weights, double share_of_experts) {
  uint64_t bytes = BytesOf(weights.head);
  for (const LayerWeights& layer : weights.layers) {
    for (const Matrix* matrix : {&layer.q, &layer.k, &layer.v, &layer.o}) {
      bytes += BytesOf(*matrix);
    }
    bytes += MlpWeightBytes(layer, share_of_experts);
  }
  return bytes;
}

uint64_t LayerKvBytes(const ModelDescriptor& d, int layer, int64_t context, DType kv) {
  const int32_t window = d.groups[d.layers[layer].group].window;
  const int64_t seen = window > 0 ? std::min<int64_t>(window, context) : context;
  return static_cast<uint64_t>(seen * KvSlotBytes(d, kv));
}

uint64_t FloorKvBytes(const ModelDescriptor& descriptor, int64_t context, DType kv) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < descriptor.layers.size(); ++i) {
    bytes += LayerKvBytes(descriptor, static_cast<int>(i), context, kv);
  }
  return bytes;
}

double StreamBandwidth(std::string_view device_name, double measured) {
  return device_name.find("H200") != device_name.npos ? std::max(measured, kH200Stream) : measured;
}

}  // namespace sirocco
