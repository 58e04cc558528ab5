#include "kernels/cpu/rows.h"

#include <cmath>

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once a target.
#include "kernels/cpu/dot-inl.h"
#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

void DotColumnsOfTarget(const Matrix& weight, int32_t first_column, int32_t columns, const float* x,
                        int64_t x_stride, int32_t rows, float* out, int64_t out_stride) {
  const int64_t offset = int64_t{first_column} * weight.cols;
  if (weight.dtype == DType::kBFloat16) {
    DotBlock(x, x_stride, rows, static_cast<const BFloat16*>(weight.data) + offset, weight.cols,
             columns, weight.cols, out, out_stride);
  } else {
    DotBlock(x, x_stride, rows, static_cast<const float*>(weight.data) + offset, weight.cols,
             columns, weight.cols, out, out_stride);
  }
}

void NormRowTarget(const float* in, const float* weight, float epsilon, int32_t width, float* out) {
  float squares = 0;
  DotTile<1, 1>(in, 0, in, 0, width, &squares, 0);
  const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(width) + epsilon);
  for (int32_t i = 0; i < width; ++i) out[i] = in[i] * inverse * weight[i];
}

HWY_INLINE Pack Activate(Activation activation, const Pack& x) {
  if (activation == Activation::kSilu) {
    // From exp(-|x|), which cannot overflow: 1 / (1 + e) for x >= 0, e / (1 + e) below.
    const Pack one = Broadcast(1.0f);
    const Pack e = Exp(NegativeMagnitude(x));
    return Mul(x, Div(SelectNegative(x, e, one), Add(one, e)));
  }
  constexpr float kSqrt2OverPi = 0.79788456080286535588f;
  const Pack cube = Mul(Mul(x, x), x);
  const Pack inner = Mul(Broadcast(kSqrt2OverPi), MulAdd(Broadcast(0.044715f), cube, x));
  return Mul(Mul(Broadcast(0.5f), x), Add(Broadcast(1.0f), Tanh(inner)));
}

void GatedActivationRowTarget(Activation activation, const float* gate, const float* up,
                              int32_t width, float* out) {
  int32_t i = 0;
  for (; i + kPack <= width; i += kPack) {
    Store(Mul(Activate(activation, Load(gate + i)), Load(up + i)), out + i);
  }
  if (i < width) {
    const int left = width - i;
    StoreFirst(Mul(Activate(activation, LoadFirst(gate + i, left)), LoadFirst(up + i, left)),
               out + i, left);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sirocco::cpu {

HWY_EXPORT(DotColumnsOfTarget);
HWY_EXPORT(NormRowTarget);
HWY_EXPORT(GatedActivationRowTarget);

void DotColumnsOf(const Matrix& weight, int32_t first_column, int32_t columns, const float* x,
                  int64_t x_stride, int32_t rows, float* out, int64_t out_stride) {
  HWY_DYNAMIC_DISPATCH(DotColumnsOfTarget)
  (weight, first_column, columns, x, x_stride, rows, out, out_stride);
}

void NormRow(const float* in, const float* weight, float epsilon, int32_t width, float* out) {
  HWY_DYNAMIC_DISPATCH(NormRowTarget)(in, weight, epsilon, width, out);
}

void GatedActivationRow(Activation activation, const float* gate, const float* up, int32_t width,
                        float* out) {
  HWY_DYNAMIC_DISPATCH(GatedActivationRowTarget)(activation, gate, up, width, out);
}

void TurnHead(const RotaryTable& table, int32_t position, float* head) {
  const int32_t half = table.dim / 2;
  const float* cosine = table.cos_sin + int64_t{position} * table.dim;
  const float* sine = cosine + half;
  for (int32_t i = 0; i < half; ++i) {
    const float low = head[i];
    const float high = head[i + half];
    head[i] = low * cosine[i] - high * sine[i];
    head[i + half] = high * cosine[i] + low * sine[i];
  }
}

void StoreKv(const KvLayer& kv, const int32_t* block_table, int32_t position, int32_t kv_head,
             bool value, const float* from) {
  const int64_t block = block_table[position / kv.block_size];
  const int64_t slot = int64_t{kv_head} * kv.block_size + position % kv.block_size;
  const int64_t offset =
      block * kv.block_stride + (value ? kv.value_offset : 0) + slot * kv.head_dim;
  if (kv.dtype == DType::kBFloat16) {
    BFloat16* to = static_cast<BFloat16*>(kv.data) + offset;
    for (int32_t i = 0; i < kv.head_dim; ++i) to[i] = BFloat16::FromFloat(from[i]);
  } else {
    float* to = static_cast<float*>(kv.data) + offset;
    for (int32_t i = 0; i < kv.head_dim; ++i) to[i] = from[i];
  }
}

void EmbedRow(const Matrix& table, int32_t row, float scale, float* out) {
  const int64_t offset = int64_t{row} * table.cols;
  if (table.dtype == DType::kBFloat16) {
    const BFloat16* from = static_cast<const BFloat16*>(table.data) + offset;
    for (int32_t i = 0; i < table.cols; ++i) out[i] = from[i].ToFloat() * scale;
  } else {
    const float* from = static_cast<const float*>(table.data) + offset;
    for (int32_t i = 0; i < table.cols; ++i) out[i] = from[i] * scale;
  }
}

}  // namespace sirocco::cpu
#endif  // HWY_ONCE
