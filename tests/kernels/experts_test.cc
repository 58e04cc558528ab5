// A layer's experts: which a row takes, and what becomes of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"
#include "tests/kernels/world.h"

namespace sirocco {
namespace {

using reference::Doubles;
using reference::Slice;
using reference::Wide;

struct ExpertsShape {
  int32_t experts = 4;
  int32_t a_row = 2;
  int32_t hidden = 64;
  int32_t intermediate = 48;
  int32_t rows = 5;
  bool renormalise = true;
  Activation activation = Activation::kSilu;
};

using Floats = std::vector<float>;
using Ids = std::vector<int32_t>;

class ExpertsTest : public TypedOpsTest {
 protected:
  void Make(const ExpertsShape& shape) {
    shape_ = shape;
    Values values(7);
    const auto random = [&](int64_t count, float scale) {
      return Rounded(values.Floats(count, scale), dtype());
    };
    const int64_t all = int64_t{shape.experts} * shape.intermediate * shape.hidden;
    norm_ = values.Floats(shape.hidden, 2);
    router_ = random(int64_t{shape.experts} * shape.hidden, 1);
    // So that sums of many products are not larger.
    const auto scale = [](int32_t columns) {
      return std::min(0.3f, 2.4f / std::sqrt(static_cast<float>(columns)));
    };
    gate_ = random(all, scale(shape.hidden));
    up_ = random(all, scale(shape.hidden));
    down_ = random(all, scale(shape.intermediate));
    hidden_ = values.Floats(int64_t{shape.rows} * shape.hidden, 3);
    const int32_t most_lanes = std::min(shape.rows, 64);
    world_.emplace(memory(), WorldShape{.lanes = most_lanes}, 3);
    lanes_.resize(shape.rows);
    positions_.resize(shape.rows);
    for (int32_t r = 0; r < shape.rows; ++r) {
      lanes_[r] = r % most_lanes;
      positions_[r] = (3 * r + r / most_lanes) % 64;  // never two rows of one place
    }

    layer_.mlp_norm = memory().Upload(norm_);
    layer_.router = memory().Weights(router_, dtype(), shape.experts, shape.hidden);
    layer_.gate =
        memory().Weights(gate_, dtype(), shape.experts * shape.intermediate, shape.hidden);
    layer_.up = memory().Weights(up_, dtype(), shape.experts * shape.intermediate, shape.hidden);
    layer_.down =
        memory().Weights(down_, dtype(), shape.experts * shape.hidden, shape.intermediate);
    layer_.activation = shape.activation;
    layer_.norm_epsilon = 1e-5f;
    layer_.renormalise = shape.renormalise;
    trace_ = memory().Upload(Ids(int64_t{most_lanes} * 64 * shape.a_row, -1));
    layer_.expert_trace = trace_;
    p_.rows = shape.rows;
    p_.map = world_->Map(lanes_, positions_);
    p_.lanes = world_->lanes();
    p_.hidden = memory().Residual(hidden_, shape.hidden);
    p_.normed = memory().Empty(shape.rows, activations(), shape.hidden);
    p_.chosen = memory().Upload(Ids(shape.rows * shape.a_row, -1));
    p_.shares = memory().Upload(Floats(shape.rows * shape.a_row, -1));
    p_.activated = memory().Empty(shape.rows, activations(), shape.a_row * shape.intermediate);
    p_.layer.index = 1;
    p_.layer.intermediate = shape.intermediate;
    p_.layer.experts = shape.experts;
    p_.layer.experts_a_row = shape.a_row;
    SetTable();
  }
  void SetTable() { p_.layer.table = memory().Upload(std::vector<LayerParams>{{}, layer_}); }

  Doubles NormedRow(int32_t row) const {
    return reference::RmsNorm(Wide(Slice(hidden_, int64_t{row} * shape_.hidden, shape_.hidden)),
                              shape_.hidden, norm_, layer_.norm_epsilon);
  }
  Doubles LogitsOf(const Doubles& normed) const {
    return reference::MatMul(normed, shape_.hidden, router_, {});
  }

  // What a row becomes with these experts.
  Doubles Expected(int32_t row, const Ids& chosen) const {
    const Doubles normed = NormedRow(row);
    const Doubles logits = LogitsOf(normed);
    double sum = 0;
    for (int32_t e = 0; e < shape_.experts; ++e) {
      const bool counts =
          !shape_.renormalise || std::find(chosen.begin(), chosen.end(), e) != chosen.end();
      if (counts) sum += std::exp(logits[e]);
    }
    Doubles out = Wide(Slice(hidden_, int64_t{row} * shape_.hidden, shape_.hidden));
    const int64_t each = int64_t{shape_.intermediate} * shape_.hidden;
    for (const int32_t e : chosen) {
      const Doubles gate =
          reference::MatMul(normed, shape_.hidden, Slice(gate_, e * each, each), {});
      Doubles up = reference::MatMul(normed, shape_.hidden, Slice(up_, e * each, each), {});
      for (size_t i = 0; i < up.size(); ++i) {
        up[i] *= reference::Activate(shape_.activation, gate[i]);
      }
      const Doubles down =
          reference::MatMul(up, shape_.intermediate, Slice(down_, e * each, each), {});
      for (size_t i = 0; i < out.size(); ++i) out[i] += std::exp(logits[e]) / sum * down[i];
    }
    return out;
  }

  Ids TracedOf(int32_t row) {
    const int32_t place = lanes_[row] * 64 + positions_[row];
    const Ids all = memory().Download(trace_, (int64_t{place} + 1) * shape_.a_row);
    const auto first = all.begin() + int64_t{place} * shape_.a_row;
    return {first, first + shape_.a_row};
  }

  void ExpectRows(const std::vector<Ids>& chosen) {
    Doubles want;
    for (int32_t row = 0; row < shape_.rows; ++row) {
      const Doubles one = Expected(row, chosen[row]);
      want.insert(want.end(), one.begin(), one.end());
    }
    ExpectRowsNear(memory().Download(p_.hidden, shape_.rows), want, shape_.hidden, tolerance());
  }

  ExpertsShape shape_;
  Floats norm_, router_, gate_, up_, down_, hidden_;
  Ids lanes_, positions_;
  int32_t* trace_ = nullptr;
  std::optional<World> world_;
  LayerParams layer_;
  ExpertsParams p_;
};

TEST_P(ExpertsTest, TheLargestAreTakenAndTheirSharesAdded) {
  for (const ExpertsShape& shape :
       {ExpertsShape{},
        ExpertsShape{.experts = 8,
        .a_row = 3,
        .hidden = 61,
        .intermediate = 33,
        .rows = 7,
        .renormalise = false,
        .activation = Activation::kGeluTanh},
        ExpertsShape{.experts = 3, .a_row = 3, .hidden = 40, .intermediate = 16, .rows = 1},
        ExpertsShape{.experts = 70, .a_row = 8, .hidden = 96, .intermediate = 20, .rows = 40},
        // Of one backend: some rows of an expert and many, several pieces of a row and a rest, as
        // many experts as there may be, more rows than are done at once.
        ExpertsShape{.experts = 4, .a_row = 2, .hidden = 64, .intermediate = 56, .rows = 9},
        ExpertsShape{.experts = 4, .a_row = 2, .hidden = 64, .intermediate = 56, .rows = 200},
        ExpertsShape{.experts = 5, .a_row = 2, .hidden = 2072, .intermediate = 520, .rows = 3},
        ExpertsShape{.experts = 5, .a_row = 4, .hidden = 328, .intermediate = 264, .rows = 30},
        ExpertsShape{.experts = 1024, .a_row = 5, .hidden = 32, .intermediate = 16, .rows = 12},
        ExpertsShape{.experts = 3, .a_row = 1, .hidden = 16, .intermediate = 8, .rows = 1100}}) {
    SCOPED_TRACE(::testing::Message() << shape.experts << " experts, rows " << shape.rows);
    Make(shape);
    Execute(p_);
    std::vector<Ids> chosen;
    for (int32_t row = 0; row < shape.rows; ++row) {
      chosen.push_back(TracedOf(row));
      ASSERT_TRUE(std::is_sorted(chosen[row].begin(), chosen[row].end()));
      // None that was left out is clearly larger than one that was taken.
      const Doubles logits = LogitsOf(NormedRow(row));
      double least = 1e9, left = -1e9;
      for (int32_t e = 0; e < shape.experts; ++e) {
        const bool taken =
            std::find(chosen[row].begin(), chosen[row].end(), e) != chosen[row].end();
        if (taken) least = std::min(least, logits[e]);
        if (!taken) left = std::max(left, logits[e]);
      }
      EXPECT_LT(left, least + 10 * tolerance());
    }
    EXPECT_EQ(memory().Download(p_.chosen, shape.a_row), chosen[0]);
    ExpectRows(chosen);
  }
}

// On every device: what a row becomes does not depend on the others of the step.
TEST_P(ExpertsTest, ARowAloneAsAmongOthers) {
  for (const ExpertsShape& shape :
       {ExpertsShape{.experts = 5, .a_row = 2, .hidden = 328, .intermediate = 264, .rows = 70},
        ExpertsShape{.experts = 70, .a_row = 8, .hidden = 96, .intermediate = 40, .rows = 40},
        ExpertsShape{.experts = 5, .a_row = 2, .hidden = 61, .intermediate = 33, .rows = 20}}) {
    Make(shape);
    const Rows hidden = p_.hidden;
    Execute(p_);
    const Floats all = memory().Download(hidden, shape.rows);
    for (const int32_t rows : {1, 2, 8, 9, 16, 17}) {
      const int64_t count = int64_t{rows} * shape.hidden;
      p_.rows = rows;
      p_.hidden = memory().Residual(Slice(hidden_, 0, count), shape.hidden);
      Execute(p_);
      EXPECT_TRUE(memory().Download(p_.hidden, rows) == Slice(all, 0, count)) << rows << " rows";
    }
  }
}

TEST_P(ExpertsTest, OfEqualOnesThoseWithTheLowerIds) {
  Make({.experts = 6, .a_row = 2});
  layer_.router = memory().Weights(Floats(6 * 64, 0.0f), dtype(), 6, 64);
  SetTable();
  Execute(p_);
  EXPECT_EQ(TracedOf(2), (Ids{0, 1}));
  EXPECT_EQ(memory().Download(p_.shares, 2), (Floats{0.5f, 0.5f}));
}

TEST_P(ExpertsTest, ImposedOnesAreTaken) {
  Make({.experts = 6, .a_row = 2});
  Ids trace(int64_t{shape_.rows} * 64 * 2, -1);
  std::vector<Ids> chosen;
  for (int32_t row = 0; row < shape_.rows; ++row) {
    chosen.push_back({row % 3, 3 + row % 2});
    std::copy(chosen[row].begin(), chosen[row].end(),
              trace.begin() + (int64_t{row} * 64 + positions_[row]) * 2);
  }
  layer_.expert_trace = memory().Upload(trace);
  layer_.impose_experts = true;
  SetTable();
  Execute(p_);
  ExpectRows(chosen);
}

TEST_P(ExpertsTest, TheCounterFindsTheLayerAndMovesOn) {
  Make({});
  p_.layer.counter = memory().Upload(Ids{1});
  p_.layer.index = 0;
  p_.advance = const_cast<int32_t*>(p_.layer.counter);
  Execute(p_);
  EXPECT_EQ(memory().Download(p_.advance, 1)[0], 2);
  std::vector<Ids> chosen;
  for (int32_t row = 0; row < shape_.rows; ++row) chosen.push_back(TracedOf(row));
  ExpectRows(chosen);
}

TEST_P(ExpertsTest, MoreThanThereAreIsRefused) {
  Make({});
  p_.layer.experts_a_row = 5;
  EXPECT_EQ(ops().Run(p_).code(), absl::StatusCode::kInvalidArgument);
}

SIROCCO_ON_ALL_TYPED_DEVICES(ExpertsTest);

}  // namespace
}  // namespace sirocco
