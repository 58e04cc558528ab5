// The matrix product against double precision, over awkward shapes.
#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"

namespace sirocco {
namespace {

class MatMulTest : public TypedOpsTest {
 protected:
  void Check(int32_t rows, int32_t outputs, int32_t inputs, bool with_bias) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << outputs << " x " << inputs);
    Values values(static_cast<uint32_t>(rows * 31 + outputs * 7 + inputs));
    const auto in = Rounded(values.Floats(int64_t{rows} * inputs), activations());
    const auto weight = Rounded(values.Floats(int64_t{outputs} * inputs), dtype());
    const auto bias = with_bias ? values.Floats(outputs) : std::vector<float>();
    MatMulParams p;
    p.rows = rows;
    p.in = memory().Activations(in, activations(), inputs);
    p.weight = memory().Weights(weight, dtype(), outputs, inputs);
    p.bias = with_bias ? memory().Upload(bias) : nullptr;
    const reference::Doubles want = reference::MatMul(reference::Wide(in), inputs, weight, bias);
    // Logits, and what is added to the residual stream, are float32 on every device.
    for (const DType out : {activations(), DType::kFloat32}) {
      p.out = memory().Empty(rows, out, outputs);
      Execute(p);
      ExpectNear(memory().Download(p.out, rows), want, tolerance());
      if (activations() == DType::kFloat32) break;
    }
  }
};

TEST_P(MatMulTest, OneRow) {
  Check(1, 1, 1, false);
  Check(1, 7, 15, true);
  Check(1, 192, 576, false);
  Check(1, 1537, 64, true);
}

TEST_P(MatMulTest, FewRows) {
  for (int32_t rows = 2; rows <= 9; ++rows) Check(rows, 25 + rows, 33 + rows, rows % 2 == 0);
}

TEST_P(MatMulTest, ManyRows) {
  Check(129, 50, 80, true);
  Check(300, 97, 17, false);
}

// Sums that a device may make in parts: few outputs, and inputs enough for each part.
TEST_P(MatMulTest, ManyInputs) {
  Check(1, 24, 3000, false);
  for (const int32_t rows : {5, 12, 20, 40, 70, 130}) Check(rows, 70, 2048, true);
  Check(12, 70, 1961, false);
}

// More weights a thread block than the ring of the CUDA backend's stream holds, so that its slots
// are filled again; each row is cut into pieces (stream_plan_test.cc has the same shape). Nine rows
// are more than the stream takes.
TEST_P(MatMulTest, MoreThanARingHolds) {
  for (const int32_t rows : {1, 4, 8, 9}) Check(rows, 4400, 1160, rows % 2 == 0);
}

// Inputs in many groups, a multiple of eight: each warp of the stream brings its own columns of the
// rows, some of a group that is not full.
TEST_P(MatMulTest, WarpsWithColumnsOfTheirOwn) {
  for (const int32_t rows : {1, 3, 4, 8}) {
    for (const int32_t inputs : {4088, 4096}) Check(rows, 150, inputs, rows % 2 == 0);
  }
  Check(4, 2200, 4096, false);
}

TEST_P(MatMulTest, SizesAroundAVector) {
  for (const int32_t inputs : {15, 16, 17, 31, 32, 33, 47, 100}) Check(3, 5, inputs, false);
}

SIROCCO_ON_ALL_TYPED_DEVICES(MatMulTest);

}  // namespace
}  // namespace sirocco
