#include <bit>
#include <limits>

#include "kernels/cpu/blocks.h"
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/quantise.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once a target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace sirocco::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

void QuantiseRowTarget(const float* from, const QuantisedRows& to, int32_t row) {
  constexpr float kLeast = 0x1p-120f;  // 127 / this is finite
  const hn::CappedTag<float, kBlockElements> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int8_t* values = to.values(row);
  BlockScale* scales = to.scales(row);
  for (int32_t b = 0; b < to.blocks(); ++b) {
    const float* in = from + b * kBlockElements;
    int8_t* out = values + b * kBlockElements;
    // Magnitudes as integers are in their order, with infinity and NaN above all others.
    auto most = hn::Zero(di);
    for (int i = 0; i < kBlockElements; i += lanes) {
      most = hn::Max(most, hn::BitCast(di, hn::Abs(hn::LoadU(d, in + i))));
    }
    const float largest =
        std::bit_cast<float>(static_cast<int32_t>(hn::GetLane(hn::MaxOfLanes(di, most))));
    const bool finite = largest <= std::numeric_limits<float>::max();
    if (!finite || largest < kLeast) {
      for (int i = 0; i < kBlockElements; ++i) out[i] = 0;
      const float scale = finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
      scales[b] = {scale, scale, 0};
      continue;
    }
    const auto factor = hn::Set(d, 127.0f / largest);
    auto total = hn::Zero(di);
    for (int i = 0; i < kBlockElements; i += lanes) {
      const auto rounded = hn::NearestInt(hn::Mul(hn::LoadU(d, in + i), factor));
      total = hn::Add(total, rounded);
      hn::StoreU(hn::DemoteTo(d8, rounded), d8, out + i);
    }
    const float scale = largest / 127.0f;
    const int32_t sum = hn::GetLane(hn::SumOfLanes(di, total));
    scales[b] = {scale, scale * static_cast<float>(sum), sum};
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sirocco::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sirocco::cpu {

HWY_EXPORT(QuantiseRowTarget);

void QuantiseRow(const float* from, const QuantisedRows& to, int32_t row) {
  HWY_DYNAMIC_DISPATCH(QuantiseRowTarget)(from, to, row);
}

}  // namespace sirocco::cpu
#endif  // HWY_ONCE
