#include "kernels/ops.h"

#include <array>

namespace sirocco {

std::string_view NameOf(const Operation& operation) {
  // In the order of the variant's alternatives.
  static constexpr std::array<std::string_view, std::variant_size_v<Operation>> kNames = {
      "begin_step",    "embed",           "rms_norm",          "matmul",        "rotary",
      "write_kv",      "attention",       "prefill_attention", "add",           "gated_activation",
      "gather_rows",   "sample",          "score_tokens",      "norm_qkv",      "qkv",
      "qkv_attention", "output_residual", "norm_gate_up",      "down_residual", "down_norm",
      "head_norm",     "add_norm",        "adjust_logits",     "norm_qk",       "experts",
      "qkv_end",       "decoder_layers",  "output_gate_up",    "down_qkv"};
  return kNames[operation.index()];
}

std::vector<MatMulParams> Ops::ProductsOf(const Operation& operation) {
  const auto* product = std::get_if<MatMulParams>(&operation);
  return product == nullptr ? std::vector<MatMulParams>() : std::vector{*product};
}

}  // namespace sirocco
