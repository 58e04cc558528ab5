// What `sirocco info --plan` prints beside an operation's name.
#include <variant>

#include "absl/strings/str_cat.h"
#include "graphs/plan.h"

namespace sirocco {
namespace {

std::string Str(std::string_view text) { return std::string(text); }

std::string Shape(const Matrix& m) {
  return absl::StrCat("[", m.rows, ", ", m.cols, "] ", Str(NameOf(m.dtype)));
}

std::string Shape(const Rows& rows) {
  return absl::StrCat("[R, ", rows.width, "] ", Str(NameOf(rows.dtype)));
}

std::string Attention(const AttentionShape& shape, const KvLayer& kv) {
  return absl::StrCat(shape.heads, " heads over ", kv.kv_heads, ", dim ", kv.head_dim,
                      shape.window > 0 ? absl::StrCat(", window ", shape.window) : "", ", kv ",
                      Str(NameOf(kv.dtype)));
}

struct Detail {
  std::string operator()(const BeginStepParams& p) const {
    return p.derive_positions ? "block updates, positions" : "block updates";
  }
  std::string operator()(const EmbedParams& p) const {
    return absl::StrCat(Shape(p.table), " -> ", Shape(p.out));
  }
  std::string operator()(const RmsNormParams& p) const { return Shape(p.out); }
  std::string operator()(const MatMulParams& p) const {
    return absl::StrCat(Shape(p.in), " x ", Shape(p.weight), "^T");
  }
  std::string operator()(const RotaryParams& p) const {
    return absl::StrCat(Shape(p.heads), ", first ", p.table.dim, " of ", p.head_dim);
  }
  std::string operator()(const WriteKvParams& p) const {
    return absl::StrCat(Shape(p.k), " twice -> ", Str(NameOf(p.kv.dtype)));
  }
  std::string operator()(const DecodeAttentionParams& p) const { return Attention(p.shape, p.kv); }
  std::string operator()(const NormQkParams& p) const {
    return absl::StrCat("first ", p.layer.q_rows, " + ", p.layer.kv_rows, " of ", Shape(p.qkv));
  }
  std::string operator()(const QkvAttentionParams& p) const {
    return absl::StrCat(Shape(p.qkv), " -> ", Shape(p.out));
  }
  std::string operator()(const QkvEndParams& p) const {
    return absl::StrCat(Shape(p.qkv), " -> ", Shape(p.q), " and the cache");
  }
  std::string operator()(const PrefillAttentionParams& p) const { return Attention(p.shape, p.kv); }
  std::string operator()(const AddParams& p) const { return Shape(p.sum); }
  std::string operator()(const GatedActivationParams& p) const { return Shape(p.out); }
  std::string operator()(const GatherRowsParams& p) const { return Shape(p.out); }
  std::string operator()(const AdjustLogitsParams& p) const {
    return absl::StrCat(Shape(p.logits), " * ", p.scale,
                        p.soft_cap > 0 ? absl::StrCat(", soft-cap ", p.soft_cap) : "");
  }
  std::string operator()(const SampleParams& p) const { return Shape(p.logits); }
  std::string operator()(const ScoreTokensParams& p) const { return Shape(p.logits); }
  std::string operator()(const NormQkvParams& p) const { return Qkv(p.hidden, p.layer); }
  std::string operator()(const QkvParams& p) const { return Qkv(p.normed, p.layer); }
  std::string operator()(const OutputResidualParams& p) const {
    return absl::StrCat(Shape(p.attention), " -> ", Shape(p.hidden), Apart(p.delta));
  }
  std::string operator()(const NormGateUpParams& p) const {
    return absl::StrCat(Shape(p.hidden), " -> 2 x ", Shape(p.out));
  }
  std::string operator()(const DownResidualParams& p) const {
    return absl::StrCat(Shape(p.in), " -> ", Shape(p.hidden), Apart(p.delta));
  }
  std::string operator()(const ExpertsParams& p) const {
    return absl::StrCat(p.layer.experts_a_row, " of ", p.layer.experts, " experts of ",
                        p.layer.intermediate, " -> ", Shape(p.hidden));
  }
  std::string operator()(const DownNormParams& p) const {
    return absl::StrCat(Shape(p.in), " -> ", Shape(p.hidden), ", normed for what follows");
  }

  std::string operator()(const OutputGateUpParams& p) const {
    return absl::StrCat((*this)(p.output), "; ", (*this)(p.gate_up));
  }
  std::string operator()(const DownQkvParams& p) const {
    return absl::StrCat((*this)(p.down), "; ", (*this)(p.qkv));
  }
  std::string operator()(const DecoderLayersParams& p) const {
    if (p.layer.counter != nullptr) {
      return absl::StrCat("one of ", p.layers, " layers, ", Shape(p.hidden), " -> ",
                          Shape(p.hidden), ", and what it adds last");
    }
    return absl::StrCat(p.layers, " layers, ", Shape(p.hidden), " -> ", Shape(p.normed),
                        ", normed for what follows");
  }
  std::string operator()(const HeadNormParams& p) const {
    return absl::StrCat(Shape(p.heads), ", heads of ", p.head_dim);
  }
  std::string operator()(const AddNormParams& p) const { return Shape(p.sum); }

  // Of a product that does not join the stream by itself.
  static std::string Apart(const Rows& delta) {
    return delta.width > 0 ? ", to be normed and added by what follows" : "";
  }
  static std::string Qkv(const Rows& in, const LayerRef& layer) {
    return absl::StrCat(Shape(in), " -> ", layer.q_rows, " + 2 x ", layer.kv_rows);
  }
};

}  // namespace

std::string DetailOf(const Operation& operation) { return std::visit(Detail{}, operation); }

}  // namespace sirocco
