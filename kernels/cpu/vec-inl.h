// Sixteen float32 lanes, however wide the machine's vectors are: one AVX-512 vector or two of
// AVX2. All sums over a row are kept as 16 partial sums and folded by one tree, so that the same
// bits come whatever the vector width (with fused multiply-add: AVX2 and later).
//
// Included once a target by Highway's foreach_target; no ordinary include guard.
#if defined(SIROCCO_KERNELS_CPU_VEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIROCCO_KERNELS_CPU_VEC_INL_H_
#undef SIROCCO_KERNELS_CPU_VEC_INL_H_
#else
#define SIROCCO_KERNELS_CPU_VEC_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
// After highway.h, which it needs.
#include "hwy/contrib/math/math-inl.h"
#include "kernels/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int kPack = 16;
using PackTag = hn::CappedTag<float, kPack>;
using PackVec = hn::Vec<PackTag>;
inline constexpr int kPartLanes = static_cast<int>(hn::MaxLanes(PackTag()));
inline constexpr int kParts = kPack / kPartLanes;

struct Pack {
  PackVec part[kParts];
};

// Packs side by side for each of `rows` rows, for as many independent sums as the vector registers
// hold beside what is added (32 of AVX-512, 16 before it).
constexpr int SideBySide(int rows) {
  const int packs = (kParts == 1 ? 24 : 12) / (rows * kParts);
  return packs < 1 ? 1 : packs > 4 ? 4 : packs;
}

#define SIROCCO_EACH_PART(expression) \
  Pack result;                        \
  for (int i = 0; i < kParts; ++i) {  \
    result.part[i] = expression;      \
  }                                   \
  return result

HWY_INLINE Pack Broadcast(float value) { SIROCCO_EACH_PART(hn::Set(PackTag(), value)); }
HWY_INLINE Pack Zero() { SIROCCO_EACH_PART(hn::Zero(PackTag())); }

HWY_INLINE Pack Load(const float* from) {
  SIROCCO_EACH_PART(hn::LoadU(PackTag(), from + i * kPartLanes));
}

// bfloat16 is the upper half of a float32.
HWY_INLINE Pack Load(const BFloat16* from) {
  const hn::Rebind<uint32_t, PackTag> wide;
  const hn::Rebind<uint16_t, PackTag> narrow;
  const uint16_t* bits = reinterpret_cast<const uint16_t*>(from);
  SIROCCO_EACH_PART(hn::BitCast(
      PackTag(), hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(narrow, bits + i * kPartLanes)))));
}

// The first `count` < 16 lanes; the rest are 0.
template <typename T>
HWY_INLINE Pack LoadFirst(const T* from, int count) {
  T padded[kPack] = {};
  std::memcpy(padded, from, static_cast<size_t>(count) * sizeof(T));
  return Load(padded);
}

HWY_INLINE void Store(const Pack& a, float* to) {
  for (int i = 0; i < kParts; ++i) hn::StoreU(a.part[i], PackTag(), to + i * kPartLanes);
}

HWY_INLINE void StoreFirst(const Pack& a, float* to, int count) {
  float padded[kPack];
  Store(a, padded);
  std::memcpy(to, padded, static_cast<size_t>(count) * sizeof(float));
}

HWY_INLINE Pack Add(const Pack& a, const Pack& b) {
  SIROCCO_EACH_PART(hn::Add(a.part[i], b.part[i]));
}
HWY_INLINE Pack Sub(const Pack& a, const Pack& b) {
  SIROCCO_EACH_PART(hn::Sub(a.part[i], b.part[i]));
}
HWY_INLINE Pack Mul(const Pack& a, const Pack& b) {
  SIROCCO_EACH_PART(hn::Mul(a.part[i], b.part[i]));
}
HWY_INLINE Pack Div(const Pack& a, const Pack& b) {
  SIROCCO_EACH_PART(hn::Div(a.part[i], b.part[i]));
}
HWY_INLINE Pack Max(const Pack& a, const Pack& b) {
  SIROCCO_EACH_PART(hn::Max(a.part[i], b.part[i]));
}
// a * b + c
HWY_INLINE Pack MulAdd(const Pack& a, const Pack& b, const Pack& c) {
  SIROCCO_EACH_PART(hn::MulAdd(a.part[i], b.part[i], c.part[i]));
}
// -|a|
HWY_INLINE Pack NegativeMagnitude(const Pack& a) { SIROCCO_EACH_PART(hn::Neg(hn::Abs(a.part[i]))); }
// Lane by lane, `below` where a < 0, else `above`.
HWY_INLINE Pack SelectNegative(const Pack& a, const Pack& below, const Pack& above) {
  SIROCCO_EACH_PART(
      hn::IfThenElse(hn::Lt(a.part[i], hn::Zero(PackTag())), below.part[i], above.part[i]));
}
// For a <= 0: a large argument does not give infinity.
HWY_INLINE Pack Exp(const Pack& a) { SIROCCO_EACH_PART(hn::Exp(PackTag(), a.part[i])); }
HWY_INLINE Pack Tanh(const Pack& a) { SIROCCO_EACH_PART(hn::Tanh(PackTag(), a.part[i])); }

#undef SIROCCO_EACH_PART

// Lane l with lane l + half, half by half, down to one.
template <typename D>
HWY_INLINE float FoldSum(D /*tag*/, hn::Vec<D> v) {
#if HWY_TARGET == HWY_SCALAR
  return hn::GetLane(v);
#else
  if constexpr (hn::MaxLanes(D()) == 4) {
    v = hn::Add(v, hn::Shuffle1032(v));
    v = hn::Add(v, hn::Shuffle2301(v));
    return hn::GetLane(v);
  } else {
    const hn::Half<D> half;
    return FoldSum(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
#endif
}

HWY_INLINE float Sum(const Pack& a) {
  PackVec part[kParts];
  for (int i = 0; i < kParts; ++i) part[i] = a.part[i];
  for (int half = kParts / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] = hn::Add(part[i], part[i + half]);
  }
  return FoldSum(PackTag(), part[0]);
}

HWY_INLINE float MaxOf(const Pack& a) {
  PackVec most = a.part[0];
  for (int i = 1; i < kParts; ++i) most = hn::Max(most, a.part[i]);
  return hn::GetLane(hn::MaxOfLanes(PackTag(), most));
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#endif
