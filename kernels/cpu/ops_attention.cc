// Attention of decode steps and of prefill. All call AttendSplit and merge in the splits' order,
// and differ only in how rows become tasks and in where q comes from: ready, or as a product that
// the tasks which read it end for themselves, with the k and v of their own slots.

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "kernels/check_params.h"
#include "kernels/cpu/attend.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/layer.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/types.h"

namespace sirocco::cpu {
namespace {

// Queries that a prompt's task takes together: they share each read of the KV, and what is made of
// it. As many as these, or as few where there would be too few tasks for the threads.
constexpr int32_t kMostTaskQueries = 96;
constexpr int32_t kLeastTaskQueries = 32;

struct AttentionWork {
  RowMap map;
  Lanes lanes;
  Rows q, out;
  AttentionShape shape;  // these two unless layer.table is set
  KvLayer kv;
  LayerRef layer;
  Rows qkv;  // in place of q, where layer.table is set
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

// Known before the layer is.
DType PlannedKv(const AttentionWork& work) {
  return work.layer.table != nullptr ? work.layer.kv_dtype : work.kv.dtype;
}

absl::Status CheckLayer(const AttentionWork& work) {
  if (work.layer.table == nullptr) return absl::OkStatus();
  const LayerParams& layer = LayerOf(work.layer);
  Checks checks("qkv_attention", kTypes);
  checks.Kv(layer.kv, work.lanes).Rotary(layer.rotary, work.head_dim);
  checks
      .That(layer.kv.kv_heads == work.kv_heads && layer.kv.head_dim == work.head_dim &&
                layer.attention.heads == work.heads_a_kv_head * work.kv_heads,
            "the layer's heads are not those that were planned")
      .That(layer.kv.dtype == work.layer.kv_dtype,
            "the layer's KV type is not the one that was planned");
  return checks.status();
}

// A task's scratch: its queries, what a split needs, its partials, and the totals.
struct TaskScratch {
  float* q;
  AttendScratch split;
  float* partials;
  float* totals;

  static int64_t Bytes(int64_t queries, int32_t head_dim, DType kv) {
    const int64_t widened = kv == DType::kFloat8 ? 2 * kSplitSlots : 0;
    return (queries * (head_dim + kScoreStride + 2 * PartialFloats(head_dim)) +
            (kKeySlots + ValueSlots(queries) + widened) * head_dim) *
           static_cast<int64_t>(sizeof(float));
  }
  TaskScratch(const Scratch& scratch, int64_t queries, int32_t head_dim) {
    q = reinterpret_cast<float*>(scratch.own);
    split.keys = q + queries * head_dim;
    split.values = split.keys + int64_t{kKeySlots} * head_dim;
    split.scores = split.values + ValueSlots(queries) * head_dim;
    partials = split.scores + queries * kScoreStride;
    totals = partials + queries * PartialFloats(head_dim);
    split.widened = totals + queries * PartialFloats(head_dim);
  }

 private:
  static int64_t ValueSlots(int64_t queries) { return queries >= kWidenQueries ? kSplitSlots : 0; }
};

// Heads of one kind in a row of products: from element `first` of the row on.
struct HeadKind {
  int64_t first;
  const float* bias;
  const float* norm;
  bool turns;
};
HeadKind QueryHeads(const LayerParams& layer) { return {0, layer.q_bias, layer.q_norm, true}; }
HeadKind KeyHeads(const LayerRef& ref, const LayerParams& layer) {
  return {ref.q_rows, layer.k_bias, layer.k_norm, true};
}
HeadKind ValueHeads(const LayerRef& ref, const LayerParams& layer) {
  return {ref.q_rows + ref.kv_rows, layer.v_bias, nullptr, false};
}

// Heads own ... own + count - 1 of a kind, of one row, to `out`: bias, norm, turn.
void EndHeads(const AttentionWork& work, int32_t row, const HeadKind& kind, int32_t own,
              int32_t count, float* out) {
  const LayerParams& layer = LayerOf(work.layer);
  const int32_t dim = work.head_dim;
  const int64_t at = int64_t{own} * dim;
  std::memcpy(
      out,
      static_cast<const float*>(work.qkv.data) + int64_t{row} * work.qkv.width + kind.first + at,
      static_cast<size_t>(count) * dim * sizeof(float));
  if (kind.bias != nullptr) AddTo(out, kind.bias + at, count * dim);
  for (int32_t h = 0; h < count; ++h) {
    float* head = out + int64_t{h} * dim;
    if (kind.norm != nullptr) NormRow(head, kind.norm, layer.norm_epsilon, dim, head);
    if (kind.turns) TurnHead(layer.rotary, work.map.position[row], head);
  }
}

// k and v of a row's own slot, into the cache. `head`: [head_dim] of scratch.
void EndKv(const AttentionWork& work, int32_t row, int32_t kv_head, float* head) {
  const LayerParams& layer = LayerOf(work.layer);
  const int32_t* block_table = work.lanes.BlockTable(work.map.lane[row], layer.kv.group);
  EndHeads(work, row, KeyHeads(work.layer, layer), kv_head, 1, head);
  StoreKv(layer.kv, block_table, work.map.position[row], kv_head, false, head);
  EndHeads(work, row, ValueHeads(work.layer, layer), kv_head, 1, head);
  StoreKv(layer.kv, block_table, work.map.position[row], kv_head, true, head);
}

// Task: some rows, all their heads.
void EndQkvRows(const AttentionWork& work, int /*phase*/, int32_t task, const Scratch& own) {
  const int32_t begin = task * work.row_chunk;
  const int32_t end = std::min(work.rows, begin + work.row_chunk);
  for (int32_t row = begin; row < end; ++row) {
    EndHeads(work, row, QueryHeads(LayerOf(work.layer)), 0, work.kv_heads * work.heads_a_kv_head,
             static_cast<float*>(work.q.data) + int64_t{row} * work.q.width);
    for (int32_t kv_head = 0; kv_head < work.kv_heads; ++kv_head) {
      EndKv(work, row, kv_head, reinterpret_cast<float*>(own.own));
    }
  }
}

// The queries of `count` rows from `first_row` on for one KV head, side by side.
AttendQueries GatherQueries(const AttentionWork& work, int32_t first_row, int32_t count,
                            int32_t kv_head, const TaskScratch& scratch) {
  const int64_t width = int64_t{work.heads_a_kv_head} * work.head_dim;
  for (int32_t r = 0; r < count; ++r) {
    if (work.qkv.data != nullptr) {
      EndHeads(work, first_row + r, QueryHeads(LayerOf(work.layer)), kv_head * work.heads_a_kv_head,
               work.heads_a_kv_head, scratch.q + r * width);
      continue;
    }
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
  for (int32_t r = 0; work.qkv.data != nullptr && r < count; ++r) {
    EndKv(work, first_row + r, kv_head, scratch.partials);
  }
  const int32_t last_split = (queries.first_position + count - 1) / kSplitSlots;
  for (int32_t split = FirstSlot(shape, queries.first_position) / kSplitSlots; split <= last_split;
       ++split) {
    AttendSplit(shape, kv, queries, split, scratch.partials, scratch.split);
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
    // The row's own slot is in its last split, and read by no other task.
    if (work.qkv.data != nullptr && split == last_split) {
      EndKv(work, row, kv_head, scratch.partials);
    }
    AttendSplit(shape, KvOf(work), queries, split, partials + split * heads * floats,
                scratch.split);
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

// A decode step's rows as tasks, and the scratch they need: of each thread, and shared.
struct DecodeTasks {
  Call call;
  int64_t own_bytes;
  int64_t shared_bytes;
};
DecodeTasks DecodeTasksOf(AttentionWork work, int threads) {
  work.row_chunk = 1;
  work.splits = static_cast<int32_t>(CeilDiv(std::max(work.lanes.max_length, 1), kSplitSlots));
  const int64_t pairs = int64_t{work.rows} * work.kv_heads;
  const int64_t most_pairs = int64_t{4} * threads - 1;  // that are cut into splits
  const bool cuts = threads > 1 && work.splits > 1;
  const bool by_splits = cuts && pairs <= most_pairs;
  // As much for many rows, so that later ones of fewer allocate nothing.
  const int64_t shared = cuts ? std::min(pairs, most_pairs) * work.splits * work.heads_a_kv_head *
                                    PartialFloats(work.head_dim) *
                                    static_cast<int64_t>(sizeof(float))
                              : 0;
  Call call = by_splits ? Call::Of<AttendSplits>(work, {pairs * work.splits, pairs})
                        : Call::Of<AttendRows>(work, {pairs});
  call.AddCheck<CheckLayer, AttentionWork>();
  return {call, TaskScratch::Bytes(work.heads_a_kv_head, work.head_dim, PlannedKv(work)), shared};
}

}  // namespace

absl::Status CpuOps::Run(const DecodeAttentionParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  AttentionWork work{p.map, p.lanes, p.q, p.out, p.shape, p.kv, LayerRef(), Rows(), p.rows};
  work.kv_heads = p.kv.kv_heads;
  work.heads_a_kv_head = p.shape.heads / p.kv.kv_heads;
  work.head_dim = p.kv.head_dim;
  const DecodeTasks tasks = DecodeTasksOf(work, sink_.threads());
  return TakeWith(tasks.own_bytes, tasks.call, tasks.shared_bytes);
}

absl::Status CpuOps::Run(const QkvAttentionParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  AttentionWork work{p.map,     p.lanes, Rows(), p.out, AttentionShape(),
                     KvLayer(), p.layer, p.qkv,  p.rows};
  work.kv_heads = p.layer.kv_rows / p.layer.head_dim;
  work.heads_a_kv_head = p.layer.q_rows / p.layer.kv_rows;
  work.head_dim = p.layer.head_dim;
  const DecodeTasks tasks = DecodeTasksOf(work, sink_.threads());
  return TakeWith(tasks.own_bytes, tasks.call, tasks.shared_bytes);
}

absl::Status CpuOps::Run(const QkvEndParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  AttentionWork work{p.map,     p.lanes, p.q,   Rows(), AttentionShape(),
                     KvLayer(), p.layer, p.qkv, p.rows};
  work.kv_heads = p.layer.kv_rows / p.layer.head_dim;
  work.heads_a_kv_head = p.layer.q_rows / p.layer.kv_rows;
  work.head_dim = p.layer.head_dim;
  const Grid grid = RowGrid(p.rows, p.qkv.width);
  work.row_chunk = grid.row_chunk;
  Call call = Call::Of<EndQkvRows>(work, {grid.tasks()});
  call.AddCheck<CheckLayer, AttentionWork>();
  return TakeWith(int64_t{work.head_dim} * static_cast<int64_t>(sizeof(float)), call);
}

absl::Status CpuOps::Run(const PrefillAttentionParams& p) {
  if (const Checks checks = CheckParams(p, kTypes); !checks.ok()) return checks.status();
  AttentionWork work{p.map, p.lanes, p.q, p.out, p.shape, p.kv, LayerRef(), Rows(), p.rows};
  work.kv_heads = p.kv.kv_heads;
  work.head_dim = p.kv.head_dim;
  work.heads_a_kv_head = p.shape.heads / work.kv_heads;
  const auto chunk = [&](int32_t queries) { return std::max(1, queries / work.heads_a_kv_head); };
  const auto tasks = [&] { return CeilDiv(p.rows, work.row_chunk) * work.kv_heads; };
  work.row_chunk = chunk(kMostTaskQueries);
  // As much for all, so that later ones allocate nothing.
  const int64_t most = int64_t{work.row_chunk} * work.heads_a_kv_head;
  if (tasks() < int64_t{8} * sink_.threads()) work.row_chunk = chunk(kLeastTaskQueries);
  return TakeWith(TaskScratch::Bytes(most, work.head_dim, p.kv.dtype),
                  Call::Of<AttendRows>(work, {tasks()}));
}

}  // namespace sirocco::cpu
