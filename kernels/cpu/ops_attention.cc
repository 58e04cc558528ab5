// Attention of decode steps and of prefill. Both call AttendSplit and merge in the splits' order,
// and differ only in how rows become tasks.

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "kernels/check_params.h"
#include "kernels/cpu/attend.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/layer.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/types.h"

namespace sirocco::cpu {
namespace {

// Queries that a task takes together: they share each read of the KV.
constexpr int32_t kTaskQueries = 32;

struct AttentionWork {
  RowMap map;
  Lanes lanes;
  Rows q, out;
  AttentionShape shape;  // these two unless layer.table is set
  KvLayer kv;
  LayerRef layer;
  int32_t rows = 0;
  int32_t kv_heads = 0;
  int32_t heads_a_kv_head = 0;
  int32_t head_dim = 0;
  int32_t row_chunk = 0;
  int32_t splits = 0;  // a row has at most; where splits are tasks of their own
};

const AttentionShape& ShapeOf(const AttentionWork& work) {
  return work.layer.table != nullptr ? LayerOf(work.layer).attention : work.shape;
}
const KvLayer& KvOf(const AttentionWork& work) {
  return work.layer.table != nullptr ? LayerOf(work.layer).kv : work.kv;
}

absl::Status CheckLayer(const AttentionWork& work) {
  if (work.layer.table == nullptr) return absl::OkStatus();
  const LayerParams& layer = LayerOf(work.layer);
  Checks checks("attention", kTypes);
  checks.Kv(layer.kv, work.lanes);
  checks.That(layer.kv.kv_heads == work.kv_heads && layer.kv.head_dim == work.head_dim &&
                  layer.attention.heads == work.heads_a_kv_head * work.kv_heads,
              "the layer's heads are not those that were planned");
  return checks.status();
}

// A task's scratch: its queries, in both orders, rows of k, the scores, a split's partials, and the
// totals.
struct TaskScratch {
  float* q;
  float* by_dim;
  float* key_rows;
  float* scores;
  float* partials;
  float* totals;

  static int64_t Bytes(int64_t queries, int32_t head_dim) {
    return (queries * (head_dim + kScoreStride + 2 * PartialFloats(head_dim)) +
            ByDimFloats(queries, head_dim) + KeyRowFloats(head_dim)) *
           static_cast<int64_t>(sizeof(float));
  }
  TaskScratch(const Scratch& scratch, int64_t queries, int32_t head_dim) {
    q = reinterpret_cast<float*>(scratch.own);
    by_dim = q + queries * head_dim;
    key_rows = by_dim + ByDimFloats(queries, head_dim);
    scores = key_rows + KeyRowFloats(head_dim);
    partials = scores + queries * kScoreStride;
    totals = partials + queries * PartialFloats(head_dim);
  }
};

// The queries of `count` rows from `first_row` on for one KV head, copied side by side.
AttendQueries GatherQueries(const AttentionWork& work, int32_t first_row, int32_t count,
                            int32_t kv_head, const TaskScratch& scratch) {
  const int64_t width = int64_t{work.heads_a_kv_head} * work.head_dim;
  for (int32_t r = 0; r < count; ++r) {
    const float* from = static_cast<const float*>(work.q.data) +
                        int64_t{first_row + r} * work.q.width + kv_head * width;
    std::memcpy(scratch.q + r * width, from, static_cast<size_t>(width) * sizeof(float));
  }
  AttendQueries queries;
  queries.q = scratch.q;
  queries.rows = count;
  queries.heads = work.heads_a_kv_head;
  queries.first_position = work.map.position[first_row];
  queries.kv_head = kv_head;
  queries.block_table = work.lanes.BlockTable(work.map.lane[first_row], KvOf(work).group);
  if (const int32_t all = count * queries.heads; all >= kManyQueries) {
    QueriesByDim(scratch.q, all, work.head_dim, scratch.by_dim);
    queries.by_dim = scratch.by_dim;
    queries.key_rows = scratch.key_rows;
  }
  return queries;
}

float* OutOf(const AttentionWork& work, int32_t row, int32_t head) {
  return static_cast<float*>(work.out.data) + int64_t{row} * work.out.width +
         int64_t{head} * work.head_dim;
}

// All splits of `count` rows of one lane, at consecutive positions.
void AttendRun(const AttentionWork& work, int32_t first_row, int32_t count, int32_t kv_head,
               const Scratch& own) {
  const AttentionShape& shape = ShapeOf(work);
  const KvLayer& kv = KvOf(work);
  const int32_t heads = work.heads_a_kv_head;
  const int64_t floats = PartialFloats(work.head_dim);
  const TaskScratch scratch(own, int64_t{count} * heads, work.head_dim);
  const AttendQueries queries = GatherQueries(work, first_row, count, kv_head, scratch);
  const int32_t last_split = (queries.first_position + count - 1) / kSplitSlots;
  for (int32_t split = FirstSlot(shape, queries.first_position) / kSplitSlots; split <= last_split;
       ++split) {
    AttendSplit(shape, kv, queries, split, scratch.partials, scratch.scores);
    for (int32_t row = 0; row < count; ++row) {
      const int32_t position = queries.first_position + row;
      const int32_t row_first_split = FirstSlot(shape, position) / kSplitSlots;
      if (split < row_first_split || split > position / kSplitSlots) continue;
      for (int32_t head = 0; head < heads; ++head) {
        const int64_t at = (int64_t{row} * heads + head) * floats;
        if (split == row_first_split) {
          std::memcpy(scratch.totals + at, scratch.partials + at,
                      static_cast<size_t>(floats) * sizeof(float));
        } else {
          MergePartial(work.head_dim, scratch.partials + at, scratch.totals + at);
        }
      }
    }
  }
  for (int32_t row = 0; row < count; ++row) {
    for (int32_t head = 0; head < heads; ++head) {
      FinishPartial(work.head_dim, scratch.totals + (int64_t{row} * heads + head) * floats,
                    OutOf(work, first_row + row, kv_head * heads + head));
    }
  }
}

// Task: a chunk of rows and a KV head. Rows of one lane that follow one another go together.
void AttendRows(const AttentionWork& work, int /*phase*/, int32_t task, const Scratch& scratch) {
  const int32_t kv_head = task % work.kv_heads;
  const int32_t begin = task / work.kv_heads * work.row_chunk;
  const int32_t end = std::min(work.rows, begin + work.row_chunk);
  for (int32_t row = begin; row < end;) {
    int32_t next = row + 1;
    while (next < end && work.map.lane[next] == work.map.lane[row] &&
           work.map.position[next] == work.map.position[row] + (next - row)) {
      ++next;
    }
    AttendRun(work, row, next - row, kv_head, scratch);
    row = next;
  }
}

// Few rows on many threads: phase 0 a task a row, KV head and split; phase 1 the merges, a task a
// row and KV head. Partials stand in shared scratch as [row][kv head][split][query].
void AttendSplits(const AttentionWork& work, int phase, int32_t task, const Scratch& own) {
  const int32_t heads = work.heads_a_kv_head;
  const int64_t floats = PartialFloats(work.head_dim);
  const int32_t pair = phase == 0 ? task / work.splits : task;
  const int32_t row = pair / work.kv_heads;
  const int32_t kv_head = pair % work.kv_heads;
  const AttentionShape& shape = ShapeOf(work);
  const int32_t position = work.map.position[row];
  const int32_t first_split = FirstSlot(shape, position) / kSplitSlots;
  const int32_t last_split = position / kSplitSlots;
  float* partials =
      reinterpret_cast<float*>(own.shared) + int64_t{pair} * work.splits * heads * floats;
  if (phase == 0) {
    const int32_t split = task % work.splits;
    if (split < first_split || split > last_split) return;
    const TaskScratch scratch(own, heads, work.head_dim);
    const AttendQueries queries = GatherQueries(work, row, 1, kv_head, scratch);
    AttendSplit(shape, KvOf(work), queries, split, partials + split * heads * floats,
                scratch.scores);
    return;
  }
  for (int32_t head = 0; head < heads; ++head) {
    float* total = partials + (int64_t{first_split} * heads + head) * floats;
    for (int32_t split = first_split + 1; split <= last_split; ++split) {
      MergePartial(work.head_dim, partials + (int64_t{split} * heads + head) * floats, total);
    }
    FinishPartial(work.head_dim, total, OutOf(work, row, kv_head * heads + head));
  }
}

}  // namespace

absl::Status CpuOps::Run(const DecodeAttentionParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  const HeadCounts counts = HeadsOf(p);
  AttentionWork work{p.map, p.lanes, p.q, p.out, p.shape, p.kv, p.layer, p.rows};
  work.kv_heads = counts.kv_heads;
  work.heads_a_kv_head = counts.heads / counts.kv_heads;
  work.head_dim = counts.head_dim;
  work.row_chunk = 1;
  work.splits = static_cast<int32_t>(CeilDiv(std::max(p.lanes.max_length, 1), kSplitSlots));
  const int64_t pairs = int64_t{work.rows} * work.kv_heads;
  const int64_t most_pairs = int64_t{4} * sink_.threads() - 1;  // that are cut into splits
  const bool cuts = sink_.threads() > 1 && work.splits > 1;
  const bool by_splits = cuts && pairs <= most_pairs;
  // As much for many rows, so that later ones of fewer allocate nothing.
  const int64_t shared = cuts ? std::min(pairs, most_pairs) * work.splits * work.heads_a_kv_head *
                                    PartialFloats(work.head_dim) *
                                    static_cast<int64_t>(sizeof(float))
                              : 0;
  const int64_t own = TaskScratch::Bytes(work.heads_a_kv_head, work.head_dim);
  Call call = by_splits ? Call::Of<AttendSplits>(work, {pairs * work.splits, pairs})
                        : Call::Of<AttendRows>(work, {pairs});
  call.AddCheck<CheckLayer, AttentionWork>();
  return TakeWith(own, call, shared);
}

absl::Status CpuOps::Run(const PrefillAttentionParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  AttentionWork work{p.map, p.lanes, p.q, p.out, p.shape, p.kv, LayerRef(), p.rows};
  work.kv_heads = p.kv.kv_heads;
  work.head_dim = p.kv.head_dim;
  work.heads_a_kv_head = p.shape.heads / work.kv_heads;
  work.row_chunk = std::max(1, kTaskQueries / work.heads_a_kv_head);
  const int64_t queries = int64_t{work.row_chunk} * work.heads_a_kv_head;
  const int64_t tasks = CeilDiv(p.rows, work.row_chunk) * work.kv_heads;
  return TakeWith(TaskScratch::Bytes(queries, work.head_dim), Call::Of<AttendRows>(work, {tasks}));
}

}  // namespace sirocco::cpu
