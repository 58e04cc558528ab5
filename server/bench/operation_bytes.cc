#include "server/bench/operation_bytes.h"

#include <variant>

#include "absl/strings/str_cat.h"
#include "server/bench/floor.h"

namespace sirocco {
namespace {

uint64_t BytesOfMatrix(int64_t rows, int64_t cols, DType dtype) {
  return static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols) * BytesOf(dtype);
}

struct Bytes {
  const ModelDescriptor& descriptor;
  const OperationPlace& place;

  uint64_t operator()(const MatMulParams& p) const {
    return BytesOfMatrix(p.weight.rows, p.weight.cols, p.weight.dtype);
  }
  uint64_t operator()(const EmbedParams& p) const {
    return BytesOfMatrix(p.rows, p.table.cols, p.table.dtype);
  }
  uint64_t operator()(const DecodeAttentionParams&) const { return Kv(); }
  uint64_t operator()(const PrefillAttentionParams&) const { return Kv(); }
  uint64_t operator()(const NormQkvParams& p) const { return Qkv(p.layer); }
  uint64_t operator()(const QkvParams& p) const { return Qkv(p.layer); }
  uint64_t operator()(const OutputResidualParams& p) const {
    return BytesOfMatrix(descriptor.hidden_size, p.layer.q_rows, place.weights);
  }
  uint64_t operator()(const NormGateUpParams& p) const {
    return 2 * BytesOfMatrix(p.layer.intermediate, descriptor.hidden_size, place.weights);
  }
  uint64_t operator()(const DownResidualParams& p) const {
    return BytesOfMatrix(descriptor.hidden_size, p.layer.intermediate, place.weights);
  }
  uint64_t operator()(const DownNormParams& p) const {
    return BytesOfMatrix(descriptor.hidden_size, p.layer.intermediate, place.weights);
  }
  template <typename Params>
  uint64_t operator()(const Params&) const {
    return 0;
  }

  uint64_t Qkv(const LayerRef& layer) const {
    return BytesOfMatrix(layer.q_rows + 2 * layer.kv_rows, descriptor.hidden_size, place.weights);
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
         std::holds_alternative<PrefillAttentionParams>(operation);
}

}  // namespace sirocco
