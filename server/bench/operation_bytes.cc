#include "server/bench/operation_bytes.h"

#include <variant>

#include "absl/strings/str_cat.h"
#include "server/bench/floor.h"

namespace sirocco {
namespace {

struct Bytes {
  const ModelDescriptor& descriptor;
  const OperationPlace& place;

  uint64_t operator()(const MatMulParams& p) const { return BytesOf(p.weight); }
  uint64_t operator()(const EmbedParams& p) const {
    return BytesOf(p.table.dtype, uint64_t{1} * p.rows * p.table.cols);
  }
  uint64_t operator()(const DecodeAttentionParams&) const { return Kv(); }
  uint64_t operator()(const QkvAttentionParams&) const { return Kv(); }
  uint64_t operator()(const PrefillAttentionParams&) const { return Kv(); }
  uint64_t operator()(const NormQkvParams&) const { return Qkv(); }
  uint64_t operator()(const QkvParams&) const { return Qkv(); }
  uint64_t operator()(const OutputResidualParams&) const { return BytesOf(place.weights.o); }
  uint64_t operator()(const NormGateUpParams&) const {
    return BytesOf(place.weights.gate) + BytesOf(place.weights.up);
  }
  uint64_t operator()(const ExpertsParams&) const {
    return MlpWeightBytes(place.weights, place.share_of_experts);
  }
  uint64_t operator()(const DownResidualParams&) const { return BytesOf(place.weights.down); }
  uint64_t operator()(const DownNormParams&) const { return BytesOf(place.weights.down); }
  uint64_t operator()(const OutputGateUpParams& p) const {
    return (*this)(p.output) + (*this)(p.gate_up);
  }
  uint64_t operator()(const DownQkvParams& p) const { return (*this)(p.down) + (*this)(p.qkv); }
  uint64_t operator()(const DecoderLayersParams& p) const {
    const uint64_t weights = Qkv() + BytesOf(place.weights.o) + MlpWeightBytes(place.weights, 1);
    if (p.layer.counter != nullptr) return weights + Kv();
    uint64_t bytes = 0;
    for (int layer = 0; layer < p.layers; ++layer) {
      bytes += weights;
      bytes += place.sequences * LayerKvBytes(descriptor, layer, place.context, place.kv);
    }
    return bytes;
  }
  template <typename Params>
  uint64_t operator()(const Params&) const {
    return 0;
  }

  uint64_t Qkv() const {
    return BytesOf(place.weights.q) + BytesOf(place.weights.k) + BytesOf(place.weights.v);
  }
  uint64_t Kv() const {
    return place.sequences * LayerKvBytes(descriptor, place.layer, place.context, place.kv);
  }
};

}  // namespace

uint64_t OperationBytes(const Operation& operation, const ModelDescriptor& descriptor,
                        const OperationPlace& place) {
  return std::visit(Bytes{descriptor, place}, operation);
}

std::string StageName(const Operation& operation) {
  std::string name(NameOf(operation));
  if (const auto* product = std::get_if<MatMulParams>(&operation)) {
    absl::StrAppend(&name, " ", product->weight.rows, "x", product->weight.cols);
  }
  return name;
}

bool IsAttention(const Operation& operation) {
  return std::holds_alternative<DecodeAttentionParams>(operation) ||
         std::holds_alternative<QkvAttentionParams>(operation) ||
         std::holds_alternative<PrefillAttentionParams>(operation);
}

}  // namespace sirocco
