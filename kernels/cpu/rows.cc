#include "kernels/cpu/rows.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cpu/targets.h"
#include "kernels/kv_scale.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once a target.
#include "kernels/cpu/dot-inl.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/panel-inl.h"
#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

// One row with one column that is in no whole group, in the order of a group's chains.
template <typename W>
float DotTailColumn(const float* x, const W* w, int32_t inputs) {
  const hn::CappedTag<float, 1> one;
  const auto value = [](const auto& from) {
    if constexpr (sizeof(W) == 4) {
      return from;
    } else {
      return from.ToFloat();
    }
  };
  float total = 0;
  for (int32_t k = 0; k < inputs; k += kStretch) {
    auto sum = hn::Zero(one);
    for (int32_t i = k; i < std::min(k + kStretch, inputs); ++i) {
      sum = hn::MulAdd(hn::Set(one, x[i]), hn::Set(one, value(w[i])), sum);
    }
    total = k == 0 ? hn::GetLane(sum) : total + hn::GetLane(sum);
  }
  return total;
}

template <typename W>
void DotPlainColumns(const Matrix& weight, int32_t first_column, int32_t columns, const float* x,
                     int64_t x_stride, int32_t rows, float* out, int64_t out_stride) {
  const int32_t end = first_column + columns;
  const int32_t packed_end = std::min(end, PackedRows(weight));
  const auto groups_at = [&](int32_t c) { return reinterpret_cast<const W*>(RowsAt(weight, c)); };
  int32_t c = first_column;
  while (c < packed_end) {
    const int32_t in_group = c % kGroupRows;
    float* to = out + (c - first_column);
    if (const int32_t groups = (packed_end - c) / kGroupRows; in_group == 0 && groups > 0) {
      MultiplyPanels<true>(x, x_stride, rows, groups_at(c), groups, weight.cols, to, out_stride);
      c += groups * kGroupRows;
      continue;
    }
    // A part of a group is asked for: few rows at a time, and the part is copied.
    constexpr int32_t kRowsAtOnce = 32;
    float whole[kRowsAtOnce * kGroupRows];
    const int32_t count = std::min(kGroupRows - in_group, packed_end - c);
    for (int32_t r = 0; r < rows; r += kRowsAtOnce) {
      const int32_t taken = std::min(kRowsAtOnce, rows - r);
      MultiplyPanels<true>(x + r * x_stride, x_stride, taken, groups_at(c - in_group), 1,
                           weight.cols, whole, kGroupRows);
      for (int32_t i = 0; i < taken; ++i) {
        std::copy_n(whole + i * kGroupRows + in_group, count, to + (r + i) * out_stride);
      }
    }
    c += count;
  }
  for (; c < end; ++c) {
    for (int32_t r = 0; r < rows; ++r) {
      out[r * out_stride + (c - first_column)] =
          DotTailColumn(x + r * x_stride, groups_at(c), weight.cols);
    }
  }
}

void DotColumnsOfTarget(const Matrix& weight, int32_t first_column, int32_t columns, const float* x,
                        int64_t x_stride, int32_t rows, float* out, int64_t out_stride) {
  if (weight.dtype == DType::kBFloat16) {
    DotPlainColumns<BFloat16>(weight, first_column, columns, x, x_stride, rows, out, out_stride);
  } else {
    DotPlainColumns<float>(weight, first_column, columns, x, x_stride, rows, out, out_stride);
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

void AdjustLogitsRowTarget(float scale, float soft_cap, int32_t count, float* values) {
  const auto adjust = [&](const Pack& x) {
    const Pack scaled = Mul(x, Broadcast(scale));
    if (soft_cap <= 0) return scaled;
    const Pack cap = Broadcast(soft_cap);
    return Mul(cap, Tanh(Div(scaled, cap)));
  };
  int32_t i = 0;
  for (; i + kPack <= count; i += kPack) Store(adjust(Load(values + i)), values + i);
  if (i < count) StoreFirst(adjust(LoadFirst(values + i, count - i)), values + i, count - i);
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sirocco::cpu {

HWY_EXPORT(DotColumnsOfTarget);
HWY_EXPORT(NormRowTarget);
HWY_EXPORT(GatedActivationRowTarget);
HWY_EXPORT(AdjustLogitsRowTarget);

// Highway's numbers of targets: the best is the least.
std::string_view RowsTarget() {
  const int64_t usable = HWY_TARGETS & hwy::SupportedTargets();
  return hwy::TargetName(usable & -usable);
}

void DotColumnsOf(const Matrix& weight, int32_t first_column, int32_t columns,
                  const ProductRows& in, int32_t first_row, int32_t rows, float* out,
                  int64_t out_stride) {
  if (InBlocks(weight.dtype)) {
    // So many rows stay in the first cache while the groups pass.
    constexpr int32_t kRowsAtOnce = 32;
    for (int32_t r = 0; r < rows; r += kRowsAtOnce) {
      DotBlocks(weight, first_column, columns, in.quantised, first_row + r,
                std::min(kRowsAtOnce, rows - r), out + r * out_stride, out_stride);
    }
    return;
  }
  const int64_t stride = in.rows.width;
  const float* x = static_cast<const float*>(in.rows.data) + first_row * stride;
  HWY_DYNAMIC_DISPATCH(DotColumnsOfTarget)
  (weight, first_column, columns, x, stride, rows, out, out_stride);
}

void NormRow(const float* in, const float* weight, float epsilon, int32_t width, float* out) {
  if (weight == nullptr) {
    if (in != out) std::copy_n(in, width, out);
    return;
  }
  HWY_DYNAMIC_DISPATCH(NormRowTarget)(in, weight, epsilon, width, out);
}

void GatedActivationRow(Activation activation, const float* gate, const float* up, int32_t width,
                        float* out) {
  HWY_DYNAMIC_DISPATCH(GatedActivationRowTarget)(activation, gate, up, width, out);
}

void AdjustLogitsRow(float scale, float soft_cap, int32_t count, float* values) {
  HWY_DYNAMIC_DISPATCH(AdjustLogitsRowTarget)(scale, soft_cap, count, values);
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

namespace {

// One head's k or v of a slot, in elements from kv.data, and its scale, where it has one.
struct KvPlace {
  int64_t vector;
  int64_t scale;

  KvPlace(const KvLayer& kv, const int32_t* block_table, int32_t position, int32_t kv_head,
          bool value) {
    const int64_t block = block_table[position / kv.block_size];
    const int32_t slot = position % kv.block_size;
    vector = block * kv.block_stride + (value ? kv.value_offset : 0) +
             (int64_t{kv_head} * kv.block_size + slot) * kv.head_dim;
    scale = KvScaleOffset(kv, block, kv_head, slot) + (value ? 1 : 0);
  }
};

constexpr std::array<float, 256> kFloat8Values = [] {
  std::array<float, 256> values = {};
  for (int i = 0; i < 256; ++i) values[i] = Float8{static_cast<uint8_t>(i)}.ToFloat();
  return values;
}();

}  // namespace

void StoreKv(const KvLayer& kv, const int32_t* block_table, int32_t position, int32_t kv_head,
             bool value, const float* from) {
  const KvPlace place(kv, block_table, position, kv_head, value);
  if (kv.dtype == DType::kFloat8) {
    uint32_t largest = 0;
    for (int32_t i = 0; i < kv.head_dim; ++i) largest = std::max(largest, MagnitudeBits(from[i]));
    const uint8_t scale = KvScaleFor(largest);
    const float inverse = KvScaleInverse(scale);
    uint8_t* const to = static_cast<uint8_t*>(kv.data);
    for (int32_t i = 0; i < kv.head_dim; ++i) {
      to[place.vector + i] = Float8::FromFloat(from[i] * inverse).bits;
    }
    to[place.scale] = scale;
  } else if (kv.dtype == DType::kBFloat16) {
    BFloat16* to = static_cast<BFloat16*>(kv.data) + place.vector;
    for (int32_t i = 0; i < kv.head_dim; ++i) to[i] = BFloat16::FromFloat(from[i]);
  } else {
    float* to = static_cast<float*>(kv.data) + place.vector;
    for (int32_t i = 0; i < kv.head_dim; ++i) to[i] = from[i];
  }
}

void LoadFloat8Kv(const KvLayer& kv, const int32_t* block_table, int32_t position, int32_t kv_head,
                  bool value, float* to) {
  const KvPlace place(kv, block_table, position, kv_head, value);
  const uint8_t* const from = static_cast<const uint8_t*>(kv.data);
  const float scale = KvScaleValue(from[place.scale]);
  for (int32_t i = 0; i < kv.head_dim; ++i) to[i] = kFloat8Values[from[place.vector + i]] * scale;
}

}  // namespace sirocco::cpu
#endif  // HWY_ONCE
