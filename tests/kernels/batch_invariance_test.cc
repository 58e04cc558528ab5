// Where a device is batch-invariant a row's results are the same bits whatever rows stand beside
// it, and a position's whichever pass computes it, however its prompt is cut.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/fused_world.h"
#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"

namespace sirocco {
namespace {

using Floats = std::vector<float>;
// First row and count. Devices have kernels for few rows and for more, in tiles of 16, 32 and 64.
using Part = std::pair<int32_t, int32_t>;
constexpr int32_t kRows = 130;
const std::vector<Part> kParts = {{0, 1},  {77, 1},  {129, 1}, {3, 2},   {50, 3},  {10, 4},
                                  {20, 5}, {7, 8},   {31, 9},  {0, 16},  {40, 17}, {64, 32},
                                  {5, 33}, {60, 64}, {12, 65}, {1, 128}, {0, 129}};

Rows From(const Rows& all, int32_t first) {
  Rows rows = all;
  if (all.data == nullptr) return rows;
  rows.data = static_cast<char*>(all.data) +
              int64_t{first} * all.width * static_cast<int64_t>(BytesOf(all.dtype));
  return rows;
}

// What each row comes to among all, and in parts.
class BatchInvarianceTest : public TypedOpsTest {
 protected:
  DType kv() const { return GetParam().kv == DType::kFloat8 ? DType::kFloat8 : dtype(); }
  Floats PartOf(const Floats& all, const Part& part) {
    const int64_t width = static_cast<int64_t>(all.size()) / kRows;
    return reference::Slice(all, part.first * width, part.second * width);
  }
  template <typename Run>
  void ExpectPartsOfAll(const Run& run) {
    const std::vector<std::pair<std::string, Floats>> all = run(Part{0, kRows});
    for (const Part& part : kParts) {
      const std::vector<std::pair<std::string, Floats>> got = run(part);
      ASSERT_EQ(got.size(), all.size());
      for (size_t i = 0; i < all.size(); ++i) {
        ASSERT_EQ(got[i].second, PartOf(all[i].second, part))
            << all[i].first << ", rows from " << part.first << ": " << part.second;
      }
    }
  }
};

TEST_P(BatchInvarianceTest, RowsOfAProduct) {
  for (const auto& [outputs, inputs] :
       {std::pair(130, 75), std::pair(96, 1160), std::pair(70, 6912), std::pair(1537, 64),
        std::pair(4400, 264), std::pair(24, 3000)}) {
    SCOPED_TRACE(::testing::Message() << outputs << " outputs of " << inputs);
    Values values(static_cast<uint32_t>(outputs + inputs));
    const Rows in =
        memory().Activations(values.Floats(int64_t{kRows} * inputs), activations(), inputs);
    MatMulParams p;
    p.weight = memory().Weights(values.Floats(int64_t{outputs} * inputs), dtype(), outputs, inputs);
    p.bias = memory().Upload(values.Floats(outputs));
    for (const DType out : {activations(), DType::kFloat32}) {
      p.out = memory().Empty(kRows, out, outputs);
      ExpectPartsOfAll([&](const Part& part) {
        p.rows = part.second;
        p.in = From(in, part.first);
        Execute(p);
        return std::vector{std::pair(std::string("out"), memory().Download(p.out, part.second))};
      });
      if (activations() == DType::kFloat32) break;
    }
  }
}

// A layer's operations, one after the other, and what each leaves; of layers that the host knows
// too, whose products may be made otherwise.
TEST_P(BatchInvarianceTest, RowsOfALayer) {
  const LayerShape unknown[] = {
      {},
      {.hidden = 328,
       .heads = 8,
       .kv_heads = 2,
       .head_dim = 64,
       .rotary_dim = 64,
       .intermediate = 1040,
       .biases = true,
       .head_norms = true,
       .post_norms = true},
      {.hidden = 1160,
       .heads = 4,
       .kv_heads = 1,
       .head_dim = 256,
       .rotary_dim = 256,
       .intermediate = 520,
       .biases = false},
      {.hidden = 128,
       .heads = 6,
       .kv_heads = 2,
       .head_dim = 128,
       .rotary_dim = 96,
       .intermediate = 264,
       .activation = Activation::kGeluTanh},
  };
  std::vector<LayerShape> shapes;
  for (LayerShape shape : unknown) {
    shapes.push_back(shape);
    shape.on_host = true;
    for (const bool adjacent : {false, true}) {
      shape.adjacent = adjacent;
      shapes.push_back(shape);
    }
  }
  for (const LayerShape& shape : shapes) {
    SCOPED_TRACE(::testing::Message()
                 << "heads of " << shape.head_dim << (shape.on_host ? ", on the host" : "")
                 << (shape.adjacent ? ", adjacent" : ""));
    const LayerWorld w(memory(), shape, kRows, activations(), dtype(), kv());
    const auto empty = [&](int32_t width) { return memory().Empty(kRows, activations(), width); };
    const Rows normed = empty(shape.hidden), q = empty(w.ref.q_rows),
               attention = empty(w.ref.q_rows);
    const Rows mlp = empty(shape.intermediate);
    const Rows qkv = memory().EmptyResidual(kRows, w.ref.q_rows + 2 * w.ref.kv_rows);
    ExpectPartsOfAll([&](const Part& part) {
      const auto [first, rows] = part;
      const auto residual = [&](const Floats& all) {
        return From(memory().Residual(all, shape.hidden), first);
      };
      const Rows hidden = residual(w.hidden_values);
      const Rows delta = shape.post_norms ? residual(w.delta_values) : Rows();
      const Rows sum = shape.post_norms ? residual(w.delta_values) : Rows();
      const Rows stream = shape.post_norms ? sum : hidden;
      const RowMap map = {w.map.lane + first, w.map.position + first};
      const Lanes lanes = w.world.lanes();
      std::vector<std::pair<std::string, Floats>> left;
      const auto take = [&](const char* name, const auto& params, const Rows& of) {
        Execute(params);
        left.emplace_back(name, memory().Download(of, rows));
      };
      take("norm_qkv", NormQkvParams{rows, w.Ref(), hidden, normed, qkv, delta, sum}, qkv);
      take("qkv_attention", QkvAttentionParams{rows, map, lanes, w.Ref(), qkv, q, attention},
           attention);
      take("output_residual", OutputResidualParams{rows, w.Ref(), attention, stream, delta},
           shape.post_norms ? delta : stream);
      take("norm_gate_up",
           NormGateUpParams{rows, w.Ref(), stream, normed, mlp, delta,
                            shape.post_norms ? hidden : Rows()},
           mlp);
      left.emplace_back("the stream", memory().Download(hidden, rows));
      take("down_residual", DownResidualParams{rows, w.Ref(), mlp, hidden, nullptr, delta},
           shape.post_norms ? delta : hidden);
      take("down_norm", DownNormParams{rows, w.Ref(), mlp, hidden, w.next_norm, normed, delta},
           normed);
      left.emplace_back("the stream after it", memory().Download(hidden, rows));
      return left;
    });
  }
}

// The norms and the rest one by one.
TEST_P(BatchInvarianceTest, RowsOfNorms) {
  constexpr int32_t kWidth = 1160;
  Values values(3);
  const Rows in = memory().Residual(values.Floats(int64_t{kRows} * kWidth), kWidth);
  const Floats delta = values.Floats(int64_t{kRows} * kWidth);
  const Floats sum = values.Floats(int64_t{kRows} * kWidth);
  const float* const weight = memory().Upload(values.Floats(kWidth));
  const float* const post = memory().Upload(values.Floats(kWidth));
  const Rows out = memory().Empty(kRows, activations(), kWidth);
  ExpectPartsOfAll([&](const Part& part) {
    const auto [first, rows] = part;
    Execute(RmsNormParams{rows, From(in, first), weight, 1e-5f, out});
    Floats normed = memory().Download(out, rows);
    const Rows stream = From(memory().Residual(sum, kWidth), first);
    const Rows added = From(memory().Residual(delta, kWidth), first);
    Execute(AddNormParams{rows, stream, added, post, weight, 1e-5f, out});
    return std::vector{std::pair(std::string("rms_norm"), normed),
                       std::pair(std::string("add_norm"), memory().Download(out, rows)),
                       std::pair(std::string("sum"), memory().Download(stream, rows))};
  });
}

// A sum that is normed by an operation of its own is normed alike.
TEST_P(BatchInvarianceTest, AddNormIsTwoOperations) {
  constexpr int32_t kWidth = 1160;
  Values values(4);
  const Floats delta = values.Floats(int64_t{kRows} * kWidth);
  const Floats sum = values.Floats(int64_t{kRows} * kWidth);
  const float* const weight = memory().Upload(values.Floats(kWidth));
  const float* const post = memory().Upload(values.Floats(kWidth));
  const Rows out = memory().Empty(kRows, activations(), kWidth);
  Execute(AddNormParams{kRows, memory().Residual(sum, kWidth), memory().Residual(delta, kWidth),
                        post, weight, 1e-5f, out});
  const Floats at_once = memory().Download(out, kRows);
  const Rows stream = memory().Residual(sum, kWidth);
  Execute(AddNormParams{kRows, stream, memory().Residual(delta, kWidth), post, nullptr, 1e-5f, {}});
  Execute(RmsNormParams{kRows, stream, weight, 1e-5f, out});
  EXPECT_EQ(memory().Download(out, kRows), at_once);
}

TEST_P(BatchInvarianceTest, RowsOfAttention) {
  struct Shape {
    int32_t heads, kv_heads, head_dim;
  };
  for (const Shape& heads :
       {Shape{8, 2, 64}, Shape{4, 1, 256}, Shape{24, 2, 128}, Shape{3, 3, 128}, Shape{6, 2, 40}}) {
    SCOPED_TRACE(::testing::Message() << heads.heads << " heads of " << heads.head_dim);
    World world(memory(), {.lanes = 3, .max_length = 1200}, 5);
    const KvCache cache(memory(), world, kv(), heads.kv_heads, heads.head_dim, 1, 6);
    Values values(7);
    std::vector<int32_t> lane, position;
    for (int32_t r = 0; r < kRows; ++r) {
      lane.push_back(values.Below(3));
      position.push_back(r < 20 ? r * 64 - (r > 0 ? r % 3 : 0) : values.Below(1200));
    }
    position[19] = 1199;
    const RowMap map = world.Map(lane, position);
    const int32_t width = heads.heads * heads.head_dim;
    const Rows q =
        memory().Activations(values.Floats(int64_t{kRows} * width), activations(), width);
    const Rows out = memory().Empty(kRows, activations(), width);
    for (const int32_t window : {0, 70, 300}) {
      SCOPED_TRACE(window);
      ExpectPartsOfAll([&](const Part& part) {
        const auto [first, rows] = part;
        DecodeAttentionParams p;
        p.rows = rows;
        p.map = {map.lane + first, map.position + first};
        p.lanes = world.lanes();
        p.q = From(q, first);
        p.shape = {.heads = heads.heads,
                   .window = window,
                   .scale = 0.2f,
                   .soft_cap = window == 70 ? 5.0f : 0.0f};
        p.kv = cache.layer();
        p.out = out;
        Execute(p);
        return std::vector{std::pair(std::string("out"), memory().Download(out, rows))};
      });
    }
  }
}

// A prompt's rows in one operation, in chunks, and as a decode step has them, a row at a time.
TEST_P(BatchInvarianceTest, PrefillIsDecode) {
  const LayerShape shapes[] = {
      {},
      {.hidden = 72,
       .heads = 8,
       .kv_heads = 2,
       .head_dim = 64,
       .rotary_dim = 64,
       .intermediate = 80,
       .head_norms = true},
      {.hidden = 72,
       .heads = 4,
       .kv_heads = 1,
       .head_dim = 256,
       .rotary_dim = 128,
       .intermediate = 80},
      {.hidden = 72,
       .heads = 3,
       .kv_heads = 3,
       .head_dim = 128,
       .rotary_dim = 128,
       .intermediate = 80},
  };
  constexpr int32_t kLength = 300;
  for (const LayerShape& shape : shapes) {
    SCOPED_TRACE(::testing::Message() << "heads of " << shape.head_dim);
    LayerWorld w(memory(), shape, 2, activations(), dtype(), kv());
    std::vector<int32_t> lane(kLength, 1), position(kLength);
    for (int32_t i = 0; i < kLength; ++i) position[i] = i;
    const RowMap map = w.world.Map(lane, position);
    const Lanes lanes = w.world.lanes();
    const int32_t width = w.ref.q_rows + 2 * w.ref.kv_rows;
    const Floats products = Values(8).Floats(int64_t{kLength} * width);
    const Rows q = memory().Empty(kLength, activations(), w.ref.q_rows);
    const Rows out = memory().Empty(kLength, activations(), w.ref.q_rows);
    using Outcome = std::pair<Floats, Floats>;  // attention, cache
    const auto outcome = [&](const auto& run) {
      w.cache.Clear(device());
      run(memory().Residual(products, width));
      return Outcome(memory().Download(out, kLength), w.cache.Download(memory()));
    };
    const auto prefill = [&](const Rows& qkv, int32_t first, int32_t rows) {
      const RowMap own = {map.lane + first, map.position + first};
      Execute(QkvEndParams{rows, own, lanes, w.Ref(), From(qkv, first), From(q, first)});
      Execute(DecodeAttentionParams{rows, own, lanes, From(q, first), w.layer.attention, w.layer.kv,
                                    From(out, first)});
    };
    const Outcome decoded = outcome([&](const Rows& qkv) {
      for (int32_t i = 0; i < kLength; ++i) {
        Execute(QkvAttentionParams{1,
                                   {map.lane + i, map.position + i},
                                   lanes,
                                   w.Ref(),
                                   From(qkv, i),
                                   From(q, i),
                                   From(out, i)});
      }
    });
    const Outcome at_once = outcome([&](const Rows& qkv) { prefill(qkv, 0, kLength); });
    const Outcome in_chunks = outcome([&](const Rows& qkv) {
      for (const Part& part :
           {Part{0, 7}, Part{7, 64}, Part{71, 1}, Part{72, 190}, Part{262, 38}}) {
        prefill(qkv, part.first, part.second);
      }
    });
    EXPECT_EQ(at_once.first, decoded.first);
    EXPECT_EQ(at_once.second, decoded.second);
    EXPECT_EQ(in_chunks.first, decoded.first);
    EXPECT_EQ(in_chunks.second, decoded.second);
  }
}

template <typename Case>
std::string NameOfCase(const testing::TestParamInfo<Case>& info) {
  return CaseName(info.param);
}
INSTANTIATE_TEST_SUITE_P(All, BatchInvarianceTest, ::testing::ValuesIn(BatchInvariantCases()),
                         NameOfCase<TypedCase>);

}  // namespace
}  // namespace sirocco
