// The CPU's promises: a row's bits do not depend on the rows beside it, on the number of threads,
// on the instruction set, or on whether a step was recorded.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "hwy/targets.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/kernels/fused_world.h"
#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"

namespace sirocco {
namespace {

constexpr int32_t kRows = 13;
// Of plain weights with a tail behind the vectors; blocks are whole.
constexpr int32_t HiddenOf(DType dtype) { return InBlocks(dtype) ? 96 : 100; }
constexpr int32_t IntermediateOf(DType dtype) { return InBlocks(dtype) ? 160 : 150; }
constexpr int32_t kVocab = 333;

using Results = std::map<std::string, std::vector<float>>;

// Weights and KV in `dtype`; `norms`: with all norms that a layer can have.
struct Variant {
  DType dtype;
  bool norms;
};

// A small decoder step: every decode operation once, on `rows` rows from `first` on.
class Step {
 public:
  Step(Device& device, const Variant& variant, int32_t first, int32_t rows)
      : device_(device), memory_(device), rows_(rows) {
    const DType dtype = variant.dtype;
    const int32_t hidden = HiddenOf(dtype);
    w_ = std::make_unique<LayerWorld>(memory_,
                                      LayerShape{.hidden = HiddenOf(dtype),
                                                 .head_dim = 32,
                                                 .rotary_dim = 32,
                                                 .intermediate = IntermediateOf(dtype),
                                                 .head_norms = variant.norms,
                                                 .post_norms = variant.norms},
                                      kRows, DType::kFloat32, dtype);
    Values values(77);
    table_ = memory_.Weights(values.Floats(kVocab * hidden), dtype, kVocab, hidden);
    map_ = {w_->map.lane + first, w_->map.position + first};
    hidden_ = memory_.Empty(rows, DType::kFloat32, hidden);
    normed_ = memory_.Empty(rows, DType::kFloat32, hidden);
    qkv_ = memory_.EmptyResidual(rows, w_->ref.q_rows + 2 * w_->ref.kv_rows);
    q_ = memory_.Empty(rows, DType::kFloat32, w_->ref.q_rows);
    attention_ = memory_.Empty(rows, DType::kFloat32, w_->ref.q_rows);
    mlp_ = memory_.Empty(rows, DType::kFloat32, w_->shape.intermediate);
    logits_ = memory_.Empty(rows, DType::kFloat32, kVocab);
    if (!variant.norms) return;
    delta_ = memory_.EmptyResidual(rows, hidden);
    sum_ = memory_.EmptyResidual(rows, hidden);
  }

  // Issues the operations: to be run or recorded.
  void Issue() {
    const LayerWorld& w = *w_;
    const Lanes lanes = w.world.lanes();
    const bool norms = w.shape.post_norms;
    Take(EmbedParams{rows_, map_, lanes, Vocabulary(w.shape.hidden), 1.0f, hidden_});
    // Stands for what a layer before would add.
    if (norms) Take(EmbedParams{rows_, map_, lanes, Vocabulary(w.shape.hidden), 0.5f, delta_});
    Take(NormQkvParams{rows_, w.Ref(), hidden_, normed_, qkv_, delta_, sum_});
    Take(QkvAttentionParams{rows_, map_, lanes, w.Ref(), qkv_, q_, attention_});
    const Rows stream = norms ? sum_ : hidden_;
    Take(OutputResidualParams{rows_, w.Ref(), attention_, stream, delta_});
    Take(NormGateUpParams{rows_, w.Ref(), stream, normed_, mlp_, delta_, norms ? hidden_ : Rows()});
    Take(DownNormParams{rows_, w.Ref(), mlp_, hidden_, w.next_norm, normed_, delta_});
    Take(MatMulParams{rows_, normed_, table_, nullptr, logits_});
  }
  int operations() const { return w_->shape.post_norms ? 8 : 7; }

  Results Get() {
    return {{"hidden", memory_.Download(hidden_, rows_)},
            {"attention", memory_.Download(attention_, rows_)},
            {"logits", memory_.Download(logits_, rows_)},
            {"kv", w_->cache.Download(memory_)}};
  }

 private:
  Matrix Vocabulary(int32_t hidden) const { return {table_.data, table_.dtype, kVocab, hidden}; }

  template <typename Params>
  void Take(const Params& params) {
    const absl::Status status = device_.ops().Run(params);
    ASSERT_TRUE(status.ok()) << status;
  }

  Device& device_;
  Memory memory_;
  int32_t rows_;
  std::unique_ptr<LayerWorld> w_;
  Matrix table_;
  RowMap map_;
  Rows hidden_, normed_, qkv_, q_, attention_, mlp_, logits_;
  Rows delta_, sum_;  // null without norms
};

Results RunStep(int threads, const Variant& variant, int32_t first = 0, int32_t rows = kRows) {
  const std::unique_ptr<Device> device = CreateCpuDevice(threads).value();
  Step step(*device, variant, first, rows);
  step.Issue();
  EXPECT_TRUE(device->Synchronize().ok());
  return step.Get();
}

class InvarianceTest : public ::testing::TestWithParam<Variant> {};

TEST_P(InvarianceTest, Threads) {
  const Results one = RunStep(1, GetParam());
  for (const int threads : {2, 3, 8}) EXPECT_EQ(RunStep(threads, GetParam()), one) << threads;
}

TEST_P(InvarianceTest, Rows) {
  Results all = RunStep(2, GetParam());
  for (int32_t row = 0; row < kRows; ++row) {
    Results one = RunStep(2, GetParam(), row, 1);
    for (const char* name : {"hidden", "attention", "logits"}) {
      const int64_t width = static_cast<int64_t>(one[name].size());
      EXPECT_EQ(one[name], reference::Slice(all[name], row * width, width)) << name << row;
    }
  }
}

// Rows first ... first + rows - 1 of 300 times 130 columns: groups beside a tail, and, of plain
// weights, two whole stretches of 256 inputs beside a part of one.
std::vector<float> ProductOf(DType dtype, int32_t first, int32_t rows) {
  const std::unique_ptr<Device> device = CreateCpuDevice(2).value();
  Memory memory(*device);
  const int32_t inputs = InBlocks(dtype) ? 96 : 587;
  const int32_t outputs = 130;
  const Rows in = memory.Activations(Values(1).Floats(300 * inputs), DType::kFloat32, inputs);
  MatMulParams p;
  p.rows = rows;
  p.in = in;
  p.in.data = static_cast<float*>(in.data) + int64_t{first} * inputs;
  p.weight = memory.Weights(Values(2).Floats(outputs * inputs), dtype, outputs, inputs);
  p.out = memory.Empty(rows, DType::kFloat32, outputs);
  EXPECT_TRUE(device->ops().Run(p).ok());
  return memory.Download(p.out, rows);
}

TEST_P(InvarianceTest, RowsOfAProductUpToHundreds) {
  const DType dtype = GetParam().dtype;
  const std::vector<float> all = ProductOf(dtype, 0, 300);
  const int32_t outputs = static_cast<int32_t>(all.size()) / 300;
  for (const auto& [first, rows] :
       {std::pair(0, 1), std::pair(299, 1), std::pair(5, 2), std::pair(7, 3), std::pair(64, 7),
        std::pair(100, 16), std::pair(50, 23), std::pair(11, 24), std::pair(31, 150)}) {
    EXPECT_EQ(ProductOf(dtype, first, rows),
              reference::Slice(all, int64_t{first} * outputs, int64_t{rows} * outputs))
        << first << " + " << rows;
  }
}

TEST_P(InvarianceTest, Recorded) {
  const Results eager = RunStep(2, GetParam());
  const std::unique_ptr<Device> device = CreateCpuDevice(2).value();
  Step step(*device, GetParam(), 0, kRows);
  const Results before = step.Get();
  ASSERT_TRUE(device->BeginRecord().ok());
  step.Issue();
  const auto recording = device->EndRecord();
  ASSERT_TRUE(recording.ok());
  EXPECT_EQ((*recording)->size(), step.operations());
  EXPECT_EQ(step.Get(), before) << "recording must not run anything";
  EXPECT_EQ(device->counters().launches.load(), 0u);
  const uint64_t allocations = device->counters().allocations.load();
  for (int replay = 0; replay < 3; ++replay) {
    ASSERT_TRUE(device->Launch(**recording).ok());
    ASSERT_TRUE(device->Synchronize().ok());
    EXPECT_EQ(step.Get(), eager);
  }
  EXPECT_EQ(device->counters().replays.load(), 3u);
  EXPECT_EQ(device->counters().allocations.load(), allocations);
}

// The same bits from AVX2 as from AVX-512: 16 partial sums whatever the vectors' width. (The
// products of blocks have a test of their own, blocks_test.)
TEST_P(InvarianceTest, VectorWidth) {
  constexpr int64_t kFused = HWY_AVX2 | HWY_AVX3;
  if ((hwy::SupportedTargets() & kFused) != kFused) {
    GTEST_SKIP() << "needs a processor with AVX-512";
  }
  const auto on = [&](int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    Results results = RunStep(1, GetParam());
    results["product"] = ProductOf(GetParam().dtype, 0, 300);
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return results;
  };
  EXPECT_EQ(on(HWY_AVX2), on(HWY_AVX3));
}

INSTANTIATE_TEST_SUITE_P(
    All, InvarianceTest,
    ::testing::Values(Variant{DType::kFloat32, false}, Variant{DType::kBFloat16, false},
                      Variant{DType::kFloat32, true}, Variant{DType::kBFloat16, true},
                      Variant{DType::kQ8_0, false}, Variant{DType::kQ4_0, false},
                      Variant{DType::kQ4_1, true}),
    [](const auto& info) {
      return std::string(NameOf(info.param.dtype)) + (info.param.norms ? "_norms" : "");
    });

}  // namespace
}  // namespace sirocco
