// The kernels of panels, compiled for the host and run by an emulated GPU (emulated/gpu.h): the
// normed product, and two products without a norm between them, against sums in double precision.
// Every shape runs in several orders of its threads, which give the same bits.
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/panel_maps.h"
#include "kernels/cuda/panel_product.h"
#include "tests/kernels/emulated/gpu.h"
#include "tests/kernels/emulated/guarded.h"

namespace sirocco::cuda {
namespace {

using Doubles = std::vector<double>;

template <typename T>
using Guarded = emulated::Guarded<T>;
using Halves = Guarded<__nv_bfloat16>;
using Singles = Guarded<float>;

PanelMaps maps;
std::mt19937 values(1);
template <typename T>
void Fill(Guarded<T>& to, float scale, float middle = 0) {
  std::normal_distribution<float> of(middle, scale);
  for (size_t i = 0; i < to.size(); ++i) {
    if constexpr (std::is_same_v<T, float>) {
      to[i] = of(values);
    } else {
      to[i] = __float2bfloat16_rn(of(values));
    }
  }
}
template <typename T>
Doubles Wide(const Guarded<T>& from) {
  Doubles to(from.size());
  for (size_t i = 0; i < to.size(); ++i) to[i] = static_cast<float>(from[i]);
  return to;
}
Rows RowsOf(const Halves& of, int32_t width) { return {of.data(), DType::kBFloat16, width}; }
Rows RowsOf(const Singles& of, int32_t width) { return {of.data(), DType::kFloat32, width}; }
Matrix MatrixOf(const Halves& of, int32_t rows, int32_t cols) {
  return {of.data(), DType::kBFloat16, rows, cols};
}

Doubles Product(const Doubles& in, const Doubles& weight, int rows, int outputs, int columns) {
  Doubles out(static_cast<size_t>(rows) * outputs);
  for (int r = 0; r < rows; ++r) {
    for (int o = 0; o < outputs; ++o) {
      double sum = 0;
      for (int c = 0; c < columns; ++c) sum += in[r * columns + c] * weight[o * columns + c];
      out[r * outputs + o] = sum;
    }
  }
  return out;
}
double InverseRms(const double* row, int width, double epsilon) {
  double squares = 0;
  for (int i = 0; i < width; ++i) squares += row[i] * row[i];
  return 1 / std::sqrt(squares / width + epsilon);
}
// Over the largest value.
void ExpectNear(const Doubles& got, const Doubles& want, double tolerance) {
  double worst = 0, largest = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(got[i] - want[i]);
    worst = difference > worst || std::isnan(difference) ? difference : worst;
    largest = std::max(largest, std::abs(want[i]));
  }
  EXPECT_LE(worst / largest, tolerance);
}

struct Shape {
  int rows, inputs, hidden, outputs, split, ring;
  bool post, gate_up;
};

LaunchContext Context() {
  LaunchContext context;
  context.multiprocessors = 132;
  return context;
}

// The stream's product and the one that reads it, twice over the same memory between them.
void ExpectPair(const Shape& s) {
  SCOPED_TRACE(testing::Message() << "rows " << s.rows << ", " << s.inputs << " to " << s.hidden
                                  << " to " << s.outputs << ", split " << s.split << ", ring "
                                  << s.ring << (s.post ? ", post-norms" : "")
                                  << (s.gate_up ? ", gate and up" : ""));
  emulated::FreeMemory();
  const size_t rows = s.rows, hidden = s.hidden;
  Halves in(rows * s.inputs), first_weight(hidden * s.inputs, false);
  Halves weight(hidden * s.outputs, false), up(hidden * s.outputs, false);
  Singles bias(hidden, false), next(hidden, false), post(hidden, false);
  Fill(in, 1);
  Fill(first_weight, 0.1f);
  Fill(weight, 0.1f);
  Fill(up, 0.1f);
  Fill(bias, 0.3f);
  Fill(next, 0.2f, 1);
  Fill(post, 0.2f, 1);
  Singles stream(rows * hidden), before(rows * hidden), delta(rows * hidden), sum(rows * hidden);
  Fill(before, 2);
  Halves unnormed(UnnormedRowsOf(s.post) * rows * hidden);
  Singles squares(SquaresOf(s.post) * rows * ((hidden + 63) / 64));
  Halves activated(rows * s.outputs);
  Singles out(rows * s.outputs);
  const float epsilon = 1e-5f;

  PanelProductParams first;
  first.rows = s.rows;
  first.in = RowsOf(in, s.inputs);
  first.weight = MatrixOf(first_weight, s.hidden, s.inputs);
  first.bias = bias.data();
  first.add = !s.post;
  first.out = RowsOf(s.post ? delta : stream, s.hidden);
  first.leaves.next = next.data();
  first.leaves.rows = unnormed.data();
  first.leaves.squares = squares.data();
  PanelProductParams second;
  second.rows = s.rows;
  second.in = RowsOf(unnormed, s.hidden);
  second.weight = MatrixOf(weight, s.outputs, s.hidden);
  second.out = s.gate_up ? RowsOf(activated, s.outputs) : RowsOf(out, s.outputs);
  if (s.gate_up) second.up = MatrixOf(up, s.outputs, s.hidden);
  second.unnormed.squares = squares.data();
  second.unnormed.epsilon = epsilon;
  if (s.post) {
    first.leaves.post = post.data();
    first.leaves.hidden = stream.data();
    second.unnormed.post = true;
    second.unnormed.hidden = stream.data();
    second.unnormed.added = delta.data();
    second.unnormed.sum = s.gate_up ? sum.data() : stream.data();
  }
  ASSERT_TRUE(TakesUnnormed(first) && TakesUnnormed(second));

  // What is wanted.
  Doubles joined = Wide(before);
  Doubles added = Product(Wide(in), Wide(first_weight), s.rows, s.hidden, s.inputs);
  Doubles normed(joined.size());
  for (int r = 0; r < s.rows; ++r) {
    double* const row = &added[r * hidden];
    for (int i = 0; i < s.hidden; ++i) row[i] += bias[i];
    const double joins = s.post ? InverseRms(row, s.hidden, epsilon) : 1;
    for (int i = 0; i < s.hidden; ++i)
      joined[r * hidden + i] += joins * row[i] * (s.post ? post[i] : 1);
    const double divides = InverseRms(&joined[r * hidden], s.hidden, epsilon);
    for (int i = 0; i < s.hidden; ++i)
      normed[r * hidden + i] = joined[r * hidden + i] * divides * next[i];
  }
  Doubles want = Product(normed, Wide(weight), s.rows, s.outputs, s.hidden);
  if (s.gate_up) {
    const Doubles ups = Product(normed, Wide(up), s.rows, s.outputs, s.hidden);
    for (size_t i = 0; i < want.size(); ++i) want[i] = want[i] / (1 + std::exp(-want[i])) * ups[i];
  }

  Doubles got[2], got_stream[2];
  for (int run = 0; run < 2; ++run) {
    emulated::Seed(run);
    for (size_t i = 0; i < before.size(); ++i) stream[i] = before[i];
    const PanelTuning tuning = {s.split, s.ring};
    ASSERT_EQ(hopper::LaunchPanelProduct(first, maps, Context(), tuning), cudaSuccess);
    ASSERT_EQ(hopper::LaunchPanelProduct(second, maps, Context(), tuning), cudaSuccess);
    got[run] = s.gate_up ? Wide(activated) : Wide(out);
    got_stream[run] = Wide(s.post && s.gate_up ? sum : stream);
    for (size_t i = 0; i < squares.size(); ++i) ASSERT_TRUE(std::isfinite(squares[i])) << i;
  }
  EXPECT_EQ(got[0], got[1]);
  EXPECT_EQ(got_stream[0], got_stream[1]);
  ExpectNear(got[0], want, 1.5e-2);
  ExpectNear(got_stream[0], joined, 1e-5);
}

class PanelEmulatedTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Splits, PanelEmulatedTest, testing::Values(1, 2, 4, 8));

// The stream of more tiles than lanes add up at once, and a last tile that is not whole.
TEST_P(PanelEmulatedTest, QkvOfUnnormedRows) {
  for (const bool post : {false, true}) {
    for (const int rows : {3, 4, 5, 9, 16, 17, 32}) {
      if (rows > UnnormedRows(post)) continue;
      ExpectPair({rows, 192, 200, 72, GetParam(), 0, post, false});
    }
  }
  ExpectPair({4, 64, 2120, 64, GetParam(), 1, false, false});
  ExpectPair({13, 64, 776, 64, GetParam(), 1, true, false});
}

TEST_P(PanelEmulatedTest, GateAndUpOfUnnormedRows) {
  for (const bool post : {false, true}) {
    for (const int rows : {3, 8, 9, 16, 20, 32}) {
      if (rows > UnnormedRows(post)) continue;
      ExpectPair({rows, 136, 200, 72, GetParam(), 0, post, true});
    }
  }
}

// A ring of two stages goes round.
TEST_P(PanelEmulatedTest, RingsOfTwoStages) {
  for (const bool post : {false, true}) {
    for (const bool gate_up : {false, true}) {
      ExpectPair({6, 1288, 328, 64, GetParam(), 1, post, gate_up});
    }
  }
}

TEST_P(PanelEmulatedTest, NormedProducts) {
  for (const int rows : {3, 13, 32, 64}) {
    SCOPED_TRACE(rows);
    emulated::FreeMemory();
    const int inputs = 264, outputs = 130;
    Halves in(static_cast<size_t>(rows) * inputs);
    Halves weight(static_cast<size_t>(inputs) * outputs, false);
    Singles out(static_cast<size_t>(rows) * outputs);
    Fill(in, 1);
    Fill(weight, 0.1f);
    PanelProductParams p;
    p.rows = rows;
    p.in = RowsOf(in, inputs);
    p.weight = MatrixOf(weight, outputs, inputs);
    p.out = RowsOf(out, outputs);
    ASSERT_TRUE(TakesPanels(p));
    ASSERT_EQ(hopper::LaunchPanelProduct(p, maps, Context(), {GetParam(), 1}), cudaSuccess);
    ExpectNear(Wide(out), Product(Wide(in), Wide(weight), rows, outputs, inputs), 1e-5);
  }
}

// More rows than a tile has, and parts of them: a row comes to the same bits in all.
TEST_P(PanelEmulatedTest, RowsAmongAnyNumberOfRows) {
  constexpr int kAll = 150, kInputs = 264, kOutputs = 130;
  for (const bool gate_up : {false, true}) {
    SCOPED_TRACE(gate_up ? "gate and up" : "onto what is there");
    emulated::FreeMemory();
    Halves in(size_t{kAll} * kInputs);
    Halves weight(size_t{kInputs} * kOutputs, false), up(size_t{kInputs} * kOutputs, false);
    Singles bias(kOutputs, false), before(size_t{kAll} * kOutputs);
    Fill(in, 1);
    Fill(weight, 0.1f);
    Fill(up, 0.1f);
    Fill(bias, 0.3f);
    Fill(before, 2);
    const auto outputs_of = [&](int first, int rows) {
      Singles out(static_cast<size_t>(rows) * kOutputs);
      for (size_t i = 0; i < out.size(); ++i) out[i] = before[first * kOutputs + i];
      PanelProductParams p;
      p.rows = rows;
      p.in = {in.data() + first * kInputs, DType::kBFloat16, kInputs};
      p.weight = MatrixOf(weight, kOutputs, kInputs);
      p.bias = bias.data();
      p.out = RowsOf(out, kOutputs);
      p.add = !gate_up;
      if (gate_up) p.up = MatrixOf(up, kOutputs, kInputs);
      EXPECT_TRUE(FitsPanels(p));
      EXPECT_EQ(hopper::LaunchPanelProduct(p, maps, Context(), {GetParam(), 0}), cudaSuccess);
      return Wide(out);
    };
    const Doubles all = outputs_of(0, kAll);
    Doubles want = Product(Wide(in), Wide(weight), kAll, kOutputs, kInputs);
    const Doubles ups = Product(Wide(in), Wide(up), kAll, kOutputs, kInputs);
    for (size_t i = 0; i < want.size(); ++i) {
      want[i] += bias[i % kOutputs];
      want[i] = gate_up ? want[i] / (1 + std::exp(-want[i])) * ups[i] : want[i] + before[i];
    }
    ExpectNear(all, want, 1e-5);
    const std::pair<int, int> parts[] = {{0, 1},   {149, 1}, {7, 3},  {30, 8},  {61, 13},
                                         {77, 32}, {5, 33},  {2, 64}, {11, 65}, {1, 128}};
    for (const auto& [first, rows] : parts) {
      const Doubles part = outputs_of(first, rows);
      const auto from = all.begin() + first * kOutputs;
      EXPECT_EQ(part, Doubles(from, from + rows * kOutputs)) << rows << " rows from " << first;
    }
  }
}

// Splits and rings as they are chosen: gemma3-1b's down and q, k and v, its output and some of gate
// and up, and llama3.2-1b's.
TEST(PanelEmulatedShapesTest, AsModelsHaveThem) {
  ExpectPair({4, 6912, 1152, 1536, 0, 0, true, false});
  ExpectPair({16, 6912, 1152, 256, 0, 0, true, false});
  ExpectPair({4, 1024, 1152, 320, 0, 0, true, true});
  ExpectPair({4, 2048, 2048, 256, 0, 0, false, true});
  ExpectPair({32, 512, 2048, 128, 0, 0, false, true});
}

}  // namespace
}  // namespace sirocco::cuda
