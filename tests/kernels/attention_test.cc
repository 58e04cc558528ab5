// Attention against double precision; prefill against decode, bit by bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"
#include "tests/kernels/world.h"

namespace sirocco {
namespace {

using reference::Doubles;

struct Heads {
  int32_t heads, kv_heads, dim;
};

// Shapes of 600 slots: three splits of 256.
constexpr int32_t kLength = 600;

class AttentionTest : public TypedOpsTest {
 protected:
  void Prepare(const Heads& heads, const AttentionShape& shape, int32_t block_size,
               int32_t length = kLength) {
    heads_ = heads;
    shape_ = shape;
    shape_.heads = heads.heads;
    world_ = std::make_unique<World>(
        memory(), WorldShape{.lanes = 4, .max_length = length, .block_size = block_size}, 21);
    cache_ =
        std::make_unique<KvCache>(memory(), *world_, kv_dtype(), heads.kv_heads, heads.dim, 1, 22);
    kv_ = cache_->Download(memory());
    layer_ = cache_->layer();
  }

  // Queries of rows at (lane, position).
  Rows Queries(int32_t rows) {
    q_ = Rounded(Values(23).Floats(int64_t{rows} * heads_.heads * heads_.dim, 2), activations());
    return memory().Activations(q_, activations(), heads_.heads * heads_.dim);
  }

  double row_tolerance() const { return std::max(tolerance(), 4 * residual_tolerance()); }
  // Row by row: what a row attends to is the smaller, the more slots it sees.
  void ExpectRows(const std::vector<float>& got, const Doubles& want, double tolerance) {
    ExpectRowsNear(got, want, heads_.heads * heads_.dim, tolerance);
  }

  Doubles Slot(int32_t lane, int32_t position, int32_t kv_head, bool value) {
    return reference::Wide(reference::Slice(
        kv_, cache_->IndexOf(*world_, lane, position, kv_head, value), heads_.dim));
  }

  // Prefill of `segments` over what the cache holds, against the reference.
  void ExpectPrefill(const std::vector<PrefillSegment>& segments, double tolerance) {
    std::vector<int32_t> lane, position;
    for (const PrefillSegment& segment : segments) {
      for (int32_t i = 0; i < segment.count; ++i) {
        lane.push_back(segment.lane);
        position.push_back(segment.first_position + i);
      }
    }
    const Rows q = Queries(static_cast<int32_t>(lane.size()));
    ExpectRows(Prefill(q, segments), Want(lane, position), tolerance);
  }

  // The cache's layer with NaN in every slot but first ... last of one lane.
  KvLayer Poisoned(int32_t lane, int32_t first, int32_t last) {
    std::vector<float> poisoned(kv_.size(), std::nanf(""));
    for (int32_t slot = first; slot <= last; ++slot) {
      for (int32_t head = 0; head < heads_.kv_heads; ++head) {
        for (const bool value : {false, true}) {
          const int64_t at = cache_->IndexOf(*world_, lane, slot, head, value);
          std::copy_n(kv_.begin() + at, heads_.dim, poisoned.begin() + at);
        }
      }
    }
    return cache_->LayerOf(memory(), poisoned);
  }

  Doubles Want(const std::vector<int32_t>& lane, const std::vector<int32_t>& position) {
    Doubles want;
    const Doubles q = reference::Wide(q_);
    for (size_t r = 0; r < lane.size(); ++r) {
      for (int32_t h = 0; h < heads_.heads; ++h) {
        const int32_t kv_head = h / (heads_.heads / heads_.kv_heads);
        std::vector<Doubles> k, v;
        for (int32_t slot = 0; slot <= position[r]; ++slot) {
          k.push_back(Slot(lane[r], slot, kv_head, false));
          v.push_back(Slot(lane[r], slot, kv_head, true));
        }
        const Doubles out =
            reference::Attend(&q[(r * heads_.heads + h) * heads_.dim], k, v, shape_);
        want.insert(want.end(), out.begin(), out.end());
      }
    }
    return want;
  }

  std::vector<float> Decode(const Rows& q, const std::vector<int32_t>& lane,
                            const std::vector<int32_t>& position) {
    DecodeAttentionParams p;
    p.rows = static_cast<int32_t>(lane.size());
    p.map = world_->Map(lane, position);
    p.lanes = world_->lanes();
    p.q = q;
    p.shape = shape_;
    p.kv = layer_;
    p.out = memory().Empty(p.rows, activations(), q.width);
    Execute(p);
    return memory().Download(p.out, p.rows);
  }

  PrefillAttentionParams PrefillOf(const Rows& q, const std::vector<PrefillSegment>& segments) {
    std::vector<int32_t> lane, position;
    for (const PrefillSegment& segment : segments) {
      for (int32_t i = 0; i < segment.count; ++i) {
        lane.push_back(segment.lane);
        position.push_back(segment.first_position + i);
      }
    }
    PrefillAttentionParams p;
    p.rows = static_cast<int32_t>(lane.size());
    p.map = world_->Map(lane, position);
    p.lanes = world_->lanes();
    p.segments = memory().Upload(segments);
    p.segment_count = memory().Upload(std::vector<int32_t>{static_cast<int32_t>(segments.size())});
    p.q = q;
    p.shape = shape_;
    p.kv = layer_;
    p.out = memory().Empty(p.rows, activations(), q.width);
    return p;
  }

  std::vector<float> Prefill(const Rows& q, const std::vector<PrefillSegment>& segments) {
    const PrefillAttentionParams p = PrefillOf(q, segments);
    if (device().prefill_as_decode()) {  // there is no other
      Execute(DecodeAttentionParams{.rows = p.rows,
                                    .map = p.map,
                                    .lanes = p.lanes,
                                    .q = p.q,
                                    .shape = p.shape,
                                    .kv = p.kv,
                                    .out = p.out});
    } else {
      Execute(p);
    }
    return memory().Download(p.out, p.rows);
  }

  Heads heads_ = {};
  AttentionShape shape_;
  std::unique_ptr<World> world_;
  std::unique_ptr<KvCache> cache_;
  KvLayer layer_;
  std::vector<float> kv_;
  std::vector<float> q_;
};

// Around the ends of blocks and splits.
const std::vector<int32_t> kLanes = {0, 1, 0, 1, 0, 1, 0};
const std::vector<int32_t> kPositions = {0, 15, 16, 255, 256, 511, 599};

TEST_P(AttentionTest, Decode) {
  for (const Heads& heads :
       {Heads{2, 2, 16}, Heads{9, 3, 64}, Heads{4, 1, 80}, Heads{2, 1, 17}, Heads{3, 1, 256}}) {
    SCOPED_TRACE(heads.dim);
    Prepare(heads, {.scale = 0.3f}, 16);
    const Rows q = Queries(7);
    ExpectRows(Decode(q, kLanes, kPositions), Want(kLanes, kPositions), row_tolerance());
  }
}

// Head sizes of models, and odd ones; one to many query heads that share a KV head.
TEST_P(AttentionTest, DecodeOfManyShapes) {
  for (const Heads& heads :
       {Heads{1, 1, 2}, Heads{4, 4, 32}, Heads{8, 1, 34}, Heads{8, 2, 64}, Heads{3, 3, 96},
        Heads{8, 1, 128}, Heads{7, 1, 24}, Heads{40, 1, 8}, Heads{20, 1, 80}, Heads{5, 1, 512}}) {
    SCOPED_TRACE(::testing::Message() << heads.heads << "/" << heads.kv_heads << " " << heads.dim);
    Prepare(heads, {.scale = 1 / std::sqrt(static_cast<float>(heads.dim))}, 16);
    const std::vector<int32_t> lane = {0, 1, 2, 3};
    const std::vector<int32_t> position = {255, 599, 257, 3};
    const Rows q = Queries(4);
    ExpectRows(Decode(q, lane, position), Want(lane, position), row_tolerance());
  }
}

TEST_P(AttentionTest, DecodeInBlocksOfAnySize) {
  for (const int32_t block_size : {1, 5, 8, 16, 32}) {
    SCOPED_TRACE(block_size);
    Prepare({4, 2, 64}, {.scale = 0.2f}, block_size);
    const std::vector<int32_t> lane = {0, 1, 2, 3, 0, 1, 2};
    const std::vector<int32_t> position = {254, 255, 256, 257, 511, 512, 0};
    const Rows q = Queries(7);
    ExpectRows(Decode(q, lane, position), Want(lane, position), row_tolerance());
  }
}

TEST_P(AttentionTest, DecodeOfALongSequenceBesideShortOnes) {
  Prepare({4, 1, 16}, {.scale = 0.3f}, 16, 9000);
  const std::vector<int32_t> lane = {0, 1, 2, 3};
  const std::vector<int32_t> position = {5, 8999, 300, 0};
  const Rows q = Queries(4);
  ExpectRows(Decode(q, lane, position), Want(lane, position), row_tolerance());
}

// Few rows, which the CUDA backend cuts into splits of 32, 64, 128 or 256 slots by their lengths
// (kernels/cuda/decode_plan.h), or shares out to clusters of blocks, one more every 1,024 slots
// (cluster_attention.cu; heads of 64, 128 and 256): around the lengths at which that changes.
TEST_P(AttentionTest, DecodeOfFewRowsOfAnyLength) {
  for (const Heads& heads :
       {Heads{4, 1, 32}, Heads{8, 2, 64}, Heads{8, 1, 128}, Heads{4, 1, 256}}) {
    SCOPED_TRACE(::testing::Message() << "heads of " << heads.dim);
    Prepare(heads, {.scale = 0.3f}, 16, 5000);
    for (const int32_t position :
         {0, 31, 32, 63, 255, 256, 1023, 1024, 2047, 2048, 4095, 4096, 4999}) {
      SCOPED_TRACE(position);
      const Rows q = Queries(1);
      ExpectRows(Decode(q, {1}, {position}), Want({1}, {position}), row_tolerance());
    }
    const std::vector<int32_t> lane = {0, 1, 2};
    for (const std::vector<int32_t>& position :
         {std::vector<int32_t>{511, 4000, 1}, {3000, 70, 1400}}) {
      const Rows q = Queries(3);
      ExpectRows(Decode(q, lane, position), Want(lane, position), row_tolerance());
    }
  }
}

// Splits begin at multiples of their size, wherever the window does.
TEST_P(AttentionTest, DecodeOfFewRowsInAWindow) {
  for (const int32_t window : {1, 33, 500, 1030}) {
    SCOPED_TRACE(window);
    Prepare({8, 4, 16}, {.window = window, .scale = 0.3f}, 16, 3000);
    const std::vector<int32_t> lane = {0, 1};
    for (const std::vector<int32_t>& position : {std::vector<int32_t>{40, 2999}, {1029, 530}}) {
      const Rows q = Queries(2);
      ExpectRows(Decode(q, lane, position), Want(lane, position), row_tolerance());
    }
  }
}

TEST_P(AttentionTest, DecodeOfOneSplitAtMost) {
  Prepare({4, 2, 32}, {.scale = 0.2f}, 16, 100);
  const Rows q = Queries(2);
  ExpectRows(Decode(q, {0, 1}, {99, 7}), Want({0, 1}, {99, 7}), row_tolerance());
}

// More rows than a GPU's block counts at once.
TEST_P(AttentionTest, DecodeOfHundredsOfRows) {
  Prepare({1, 1, 8}, {.window = 40, .scale = 0.2f}, 16);
  std::vector<int32_t> lane, position;
  for (int32_t i = 0; i < 1100; ++i) {
    lane.push_back(i % 4);
    position.push_back((i * 37) % kLength);
  }
  const Rows q = Queries(1100);
  ExpectRows(Decode(q, lane, position), Want(lane, position), row_tolerance());
}

TEST_P(AttentionTest, DecodeOfManyRows) {
  Prepare({4, 2, 32}, {.scale = 0.2f}, 16);
  std::vector<int32_t> lane, position;
  for (int32_t i = 0; i < 40; ++i) {
    lane.push_back(i % 2);
    position.push_back((i * 37) % kLength);
  }
  const Rows q = Queries(40);
  ExpectRows(Decode(q, lane, position), Want(lane, position), row_tolerance());
}

// So many rows that a block of the CUDA backend has a long part of one, which it takes in tiles of
// 16 slots (cluster_tiles.cuh): rows that end and windows that begin anywhere in a tile, one to
// eight query heads that share a KV head, blocks of whole tiles and others.
TEST_P(AttentionTest, DecodeOfManyLongRows) {
  for (const auto& [heads, window, block_size, soft_cap] :
       {std::tuple(Heads{8, 2, 64}, 0, 16, 0.0f), std::tuple(Heads{2, 2, 64}, 290, 32, 0.0f),
        std::tuple(Heads{4, 2, 64}, 0, 48, 3.0f), std::tuple(Heads{10, 2, 64}, 301, 16, 0.0f),
        std::tuple(Heads{8, 2, 128}, 500, 16, 0.0f), std::tuple(Heads{7, 1, 128}, 0, 64, 5.0f),
        std::tuple(Heads{3, 1, 128}, 0, 24, 0.0f), std::tuple(Heads{4, 1, 256}, 0, 16, 0.0f),
        std::tuple(Heads{2, 2, 256}, 411, 16, 2.0f), std::tuple(Heads{8, 1, 256}, 0, 32, 0.0f)}) {
    SCOPED_TRACE(::testing::Message() << heads.heads << "/" << heads.kv_heads << " " << heads.dim
                                      << " in blocks of " << block_size << ", window " << window);
    Prepare(heads, {.window = window, .scale = 0.3f, .soft_cap = soft_cap}, block_size);
    // Of blocks of eight warps and of some warps a row and KV head (pair_attention.cu).
    for (const int32_t rows : {70, 140}) {
      if (rows == 140 && heads.kv_heads * heads.dim > 256) continue;
      std::vector<int32_t> lane, position;
      for (int32_t i = 0; i < rows; ++i) {
        lane.push_back(i % 4);
        position.push_back(kLength - 1 - i * 53 % 400);
      }
      const Rows q = Queries(rows);
      const std::vector<float> got = Decode(q, lane, position);
      ExpectRows(got, Want(lane, position), row_tolerance());
      EXPECT_EQ(Decode(q, lane, position), got);
    }
  }
}

TEST_P(AttentionTest, DecodeOfRowsOfThousandsOfSlots) {
  for (const Heads& heads : {Heads{4, 1, 64}, Heads{8, 2, 128}, Heads{4, 1, 256}}) {
    SCOPED_TRACE(heads.dim);
    Prepare(heads, {.scale = 0.3f}, 16, 5000);
    const std::vector<int32_t> lane = {0, 1, 2, 3, 1};
    const std::vector<int32_t> position = {4999, 2047, 300, 3333, 1};
    const Rows q = Queries(5);
    ExpectRows(Decode(q, lane, position), Want(lane, position), row_tolerance());
  }
}

// So many rows that a block of the CUDA backend serves all query heads of a KV head, and so long
// ones that it takes its tiles through a ring (cluster_ring.cuh).
TEST_P(AttentionTest, DecodeOfManyRowsOfThousandsOfSlots) {
  for (const auto& [heads, window, block_size, soft_cap] :
       {std::tuple(Heads{4, 1, 256}, 0, 16, 0.0f), std::tuple(Heads{4, 1, 256}, 700, 32, 3.0f),
        std::tuple(Heads{7, 1, 256}, 0, 16, 0.0f), std::tuple(Heads{8, 2, 128}, 0, 16, 0.0f),
        std::tuple(Heads{12, 4, 64}, 0, 48, 0.0f), std::tuple(Heads{20, 4, 64}, 900, 16, 0.0f)}) {
    SCOPED_TRACE(::testing::Message() << heads.heads << "/" << heads.kv_heads << " " << heads.dim
                                      << " in blocks of " << block_size << ", window " << window);
    Prepare(heads, {.window = window, .scale = 0.3f, .soft_cap = soft_cap}, block_size, 5000);
    std::vector<int32_t> lane, position;
    for (int32_t i = 0; i < 17; ++i) {
      lane.push_back(i % 4);
      position.push_back(i == 0 ? 4999 : i == 9 ? 2047 : i * 41);
    }
    const Rows q = Queries(17);
    const std::vector<float> got = Decode(q, lane, position);
    ExpectRows(got, Want(lane, position), row_tolerance());
    EXPECT_EQ(Decode(q, lane, position), got);
  }
}

TEST_P(AttentionTest, WindowAndSoftCap) {
  for (const int32_t window : {0, 1, 100, 256, 5000}) {
    for (const float soft_cap : {0.0f, 2.0f}) {
      SCOPED_TRACE(::testing::Message() << window << " " << soft_cap);
      Prepare({4, 2, 32}, {.window = window, .scale = 0.2f, .soft_cap = soft_cap}, 8);
      const Rows q = Queries(7);
      ExpectRows(Decode(q, kLanes, kPositions), Want(kLanes, kPositions), row_tolerance());
    }
  }
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  Prepare({2, 1, 32}, {.scale = 100.0f}, 16);
  const Rows q = Queries(7);
  ExpectRows(Decode(q, kLanes, kPositions), Want(kLanes, kPositions), 1e-3 + tolerance());
}

TEST_P(AttentionTest, Prefill) {
  for (const int32_t window : {0, 70}) {
    Prepare({6, 2, 24}, {.window = window, .scale = 0.3f}, 16);
    // Two lanes: from the start, and a later chunk over the end of a split.
    const Rows q = Queries(40 + 50);
    std::vector<int32_t> lane(40, 1), position;
    for (int32_t i = 0; i < 40; ++i) position.push_back(i);
    lane.insert(lane.end(), 50, 0);
    for (int32_t i = 0; i < 50; ++i) position.push_back(240 + i);
    ExpectRows(Prefill(q, {{1, 0, 0, 40}, {0, 40, 240, 50}}), Want(lane, position),
               row_tolerance());
  }
}

TEST_P(AttentionTest, PrefillIsDecodeBitForBit) {
  if (!GetParam().device.invariant) GTEST_SKIP() << "only where results never depend on rows";
  for (const int32_t window : {0, 70, 300}) {
    Prepare({6, 2, 40}, {.window = window, .scale = 0.3f, .soft_cap = 5}, 16);
    const Rows q = Queries(kLength);
    const auto prefill = Prefill(q, {{1, 0, 0, kLength}});
    std::vector<int32_t> lane(kLength, 1), position;
    for (int32_t i = 0; i < kLength; ++i) position.push_back(i);
    EXPECT_EQ(Decode(q, lane, position), prefill);
    for (const int32_t row : {0, 255, 256, 599}) {
      Rows one = q;
      one.data = static_cast<char*>(q.data) + int64_t{row} * q.width * BytesOf(q.dtype);
      EXPECT_EQ(Decode(one, {1}, {row}),
                reference::Slice(prefill, int64_t{row} * q.width, q.width));
    }
  }
}

// A device has no kernel beside those that it promises the same bits of.
TEST_P(AttentionTest, NoPrefillOfItsOwnWherePrefillIsDecodes) {
  Prepare({6, 2, 64}, {}, 16);
  const absl::Status status = device().ops().Run(PrefillOf(Queries(3), {{1, 0, 0, 3}}));
  if (device().prefill_as_decode()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  } else {
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_TRUE(device().Synchronize().ok());
}

// Segments of odd lengths: one row, rows up to and over the end of a tile, a chunk over existing
// slots that crosses a split.
const std::vector<PrefillSegment> kSegments = {
    {3, 0, 11, 1}, {0, 1, 0, 64}, {2, 65, 230, 65}, {1, 130, 100, 7}};

TEST_P(AttentionTest, PrefillOfManyShapes) {
  for (const Heads& heads : {Heads{1, 1, 2}, Heads{4, 4, 32}, Heads{8, 1, 64}, Heads{4, 1, 80},
                             Heads{2, 2, 96}, Heads{8, 2, 128}, Heads{2, 1, 256}, Heads{3, 1, 48},
                             Heads{2, 1, 34}, Heads{2, 1, 17}, Heads{40, 1, 8}, Heads{2, 1, 520}}) {
    SCOPED_TRACE(::testing::Message() << heads.heads << "/" << heads.kv_heads << " " << heads.dim);
    Prepare(heads, {.scale = 1 / std::sqrt(static_cast<float>(heads.dim))}, 16);
    ExpectPrefill(kSegments, row_tolerance());
  }
}

TEST_P(AttentionTest, PrefillWindowSoftCapAndBlocks) {
  for (const int32_t window : {1, 20, 64, 65, 300, 5000}) {
    for (const float soft_cap : {0.0f, 3.0f}) {
      const int32_t block_size = window % 2 == 0 ? 8 : soft_cap > 0 ? 1 : 32;
      SCOPED_TRACE(::testing::Message() << window << " " << soft_cap << " " << block_size);
      Prepare({4, 2, 64}, {.window = window, .scale = 0.2f, .soft_cap = soft_cap}, block_size);
      ExpectPrefill(kSegments, row_tolerance());
    }
  }
}

TEST_P(AttentionTest, PrefillOfALongChunk) {
  Prepare({2, 1, 64}, {.scale = 0.125f}, 16);
  ExpectPrefill({{2, 0, 300, 300}, {1, 300, 0, 129}}, row_tolerance());
}

// Several tiles of rows and of slots, whatever the width; windows that begin within a tile.
TEST_P(AttentionTest, PrefillOfLongChunksOfManyWidths) {
  for (const Heads& heads : {Heads{2, 1, 40}, Heads{4, 2, 128}, Heads{2, 1, 200}}) {
    for (const int32_t window : {0, 130}) {
      SCOPED_TRACE(::testing::Message() << heads.dim << " " << window);
      Prepare(heads, {.window = window, .scale = 1 / std::sqrt(static_cast<float>(heads.dim))}, 16);
      ExpectPrefill({{2, 0, 300, 257}, {1, 257, 0, 130}, {0, 387, 7, 129}}, row_tolerance());
    }
  }
}

TEST_P(AttentionTest, LargeScoresDoNotOverflowInPrefill) {
  Prepare({2, 1, 32}, {.scale = 100.0f}, 16);
  ExpectPrefill({{0, 0, 0, 40}, {1, 40, 300, 20}}, 1e-3 + tolerance());
}

// Slots that no row may see hold what others left there.
TEST_P(AttentionTest, SlotsBeyondThePositionAreNotRead) {
  for (const Heads& heads : {Heads{2, 1, 32}, Heads{4, 2, 128}}) {
    Prepare(heads, {.window = 20, .scale = 0.3f}, 16);
    const Rows q = Queries(10);
    const auto prefill = Prefill(q, {{0, 0, 100, 10}});
    const auto decode = Decode(q, {0}, {109});
    layer_ = Poisoned(0, 81, 109);
    EXPECT_EQ(Prefill(q, {{0, 0, 100, 10}}), prefill);
    EXPECT_EQ(Decode(q, {0}, {109}), decode);
  }
  // The same of rows that are taken in tiles.
  for (const Heads& heads : {Heads{2, 2, 64}, Heads{8, 2, 128}, Heads{4, 2, 256}}) {
    SCOPED_TRACE(heads.dim);
    Prepare(heads, {.window = 401, .scale = 0.3f}, 16);
    const Rows q = Queries(70);
    const std::vector<int32_t> lane(70, 2), position(70, 559);
    const auto decode = Decode(q, lane, position);
    layer_ = Poisoned(2, 159, 559);
    EXPECT_EQ(Decode(q, lane, position), decode);
  }
}

// The same inputs give the same bits, whatever arrived last.
TEST_P(AttentionTest, ResultsRepeat) {
  Prepare({4, 2, 64}, {.scale = 0.2f}, 16);
  const Rows q = Queries(137);
  const auto decode = Decode(q, kLanes, kPositions);
  const auto prefill = Prefill(q, kSegments);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Decode(q, kLanes, kPositions), decode);
    EXPECT_EQ(Prefill(q, kSegments), prefill);
  }
}

SIROCCO_ON_ALL_TYPED_DEVICES(AttentionTest);
SIROCCO_ON_ALL_FLOAT8_DEVICES(AttentionTest);

}  // namespace
}  // namespace sirocco
