// Sampling and scoring: a task a row.

#include "kernels/check_params.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/types.h"

namespace sirocco::cpu {
namespace {

float* LogitsOf(const Rows& logits, int32_t row) {
  return static_cast<float*>(logits.data) + int64_t{row} * logits.width;
}

// Bytes of SamplerScratch: a double, a float and an id for each id of the vocabulary.
constexpr int64_t kScratchBytes = 16;

void SampleOne(const SampleParams& p, int /*phase*/, int32_t row, const Scratch& own) {
  double* masses = reinterpret_cast<double*>(own.own);
  float* logits = reinterpret_cast<float*>(masses + p.logits.width);
  const SamplerScratch scratch{logits, reinterpret_cast<int32_t*>(logits + p.logits.width), masses};
  SampleRow(p.lanes, p.row_lane[row], LogitsOf(p.logits, row), scratch, &p.out[row]);
}

void ScoreOne(const ScoreTokensParams& p, int /*phase*/, int32_t row, const Scratch&) {
  const int64_t history = int64_t{p.map.lane[row]} * p.lanes.max_length;
  const int32_t id = p.lanes.history[history + p.map.position[row] + 1];
  p.out[row] = TokenScore();
  ScoreRow(LogitsOf(p.logits, row), p.logits.width, id, p.top, &p.out[row]);
}

}  // namespace

absl::Status CpuOps::Run(const SampleParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  return TakeWith(kScratchBytes * p.logits.width, Call::Of<SampleOne>(p, {p.rows}));
}

absl::Status CpuOps::Run(const ScoreTokensParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  return sink_.Take(Call::Of<ScoreOne>(p, {p.rows}));
}

}  // namespace sirocco::cpu
