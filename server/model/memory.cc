#include "server/model/memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/block_budget.h"
#include "engine/model/model_files.h"
#include "graphs/prefill_sizes.h"

namespace sirocco {
namespace {

// Of the CUDA graphs of one batch size, with room: 0.5 to 0.7 MiB were measured for 200 kernels.
constexpr uint64_t kGraphBytes = uint64_t{1} << 20;

// What the CUDA backend's operations may need beside the workspace: the workspace of cuBLASLt, and
// one scratch memory as large as the largest of: attention's parts (a sum and two statistics a row,
// head and 256 slots), the parts of products that are cut along their sums, and what the sampler
// notes of each part of the vocabulary. The executor has it sized before it maps the KV cache, so
// what is really taken is known then; this is a bound for planning.
constexpr uint64_t kLibraryBytes = uint64_t{32} << 20;
constexpr uint64_t kProductBytes = uint64_t{64} << 20;
uint64_t ScratchBound(const ModelDescriptor& d, const ExecutorOptions& options) {
  auto rows = static_cast<uint64_t>(options.max_batch_size);
  // Attention is of a prompt's rows then, and at most so many are one launch's.
  if (options.prefill_as_decode) {
    rows = std::max<uint64_t>(rows, std::min(options.prefill_chunk_size, 512));
  }
  const uint64_t splits = (static_cast<uint64_t>(options.max_length) + 255) / 256;
  const uint64_t head = static_cast<uint64_t>(d.head_dim + 2) * sizeof(float);
  const uint64_t attention = splits > 1 ? rows * d.heads * splits * head : 0;
  return kLibraryBytes + std::max({attention, kProductBytes, rows * d.vocab_size / 2});
}

std::string GroupName(const LayerGroup& group) {
  return group.window == 0 ? "kv, full attention" : absl::StrCat("kv, window ", group.window);
}

// All rows but the KV cache's.
MemoryTable FixedRows(const MemoryRequest& request, bool cuda) {
  const ExecutorOptions& options = request.options;
  ExecutorOptions without_blocks = options;
  without_blocks.kv_blocks.assign(request.descriptor.groups.size(), 0);
  const MemoryPlan plan = PlanMemory(request.descriptor, without_blocks);
  const auto of = [&](MemoryUse use) { return plan.bytes[static_cast<int>(use)]; };
  MemoryTable table;
  table.rows.push_back({"weights", WeightBytes(request.descriptor, request.weights),
                        absl::StrCat(request.weights.blocks != nullptr ? "blocks, else " : "",
                                     std::string(NameOf(request.weights.dtype)))});
  table.rows.push_back({"workspace", of(MemoryUse::kWorkspace),
                        absl::StrCat(options.max_batch_size, " rows, prefill chunks of ",
                                     options.prefill_chunk_size)});
  if (cuda) {
    table.rows.push_back(
        {"scratch", ScratchBound(request.descriptor, options), "of operations, at most"});
  }
  table.rows.push_back(
      {"lanes", of(MemoryUse::kLanes),
       absl::StrCat(options.max_batch_size, " of ", options.max_length, " tokens")});
  if (const uint64_t graphs = GraphReserve(cuda ? "cuda" : "cpu", options); graphs > 0) {
    const size_t prefills = PrefillSizes(options).all().size();
    table.rows.push_back(
        {"graphs", graphs,
         absl::StrCat("a reserve for ", options.max_batch_size, " batch sizes",
                      prefills > 0 ? absl::StrCat(" and ", prefills, " of prompts") : "")});
  }
  // The executor's plan has no blocks yet but these.
  if (const uint64_t filling = of(MemoryUse::kKv); filling > 0) {
    table.rows.push_back({"kv, filling", filling,
                          absl::StrCat(FillingBlocks(options),
                                       " blocks a group, of rows that fill "
                                       "prefill steps up")});
  }
  return table;
}

std::string Figures(const MemoryTable& table) {
  std::vector<std::string> parts;
  for (const MemoryTable::Row& row : table.rows) {
    parts.push_back(absl::StrCat(row.use, " ", BytesForPeople(row.bytes)));
  }
  return absl::StrJoin(parts, ", ");
}

absl::Status DoesNotFit(const MemoryTable& table, const MemoryRequest& request,
                        const DeviceMemory& memory, const std::string& kv) {
  const bool cuda = memory.backend == "cuda";
  return absl::ResourceExhaustedError(
      absl::StrCat("the model does not fit into memory: ", Figures(table), kv, "; allowed are ",
                   BytesForPeople(table.allowed), " (",
                   cuda ? absl::StrCat("memory_fraction ", request.fraction, " of ",
                                       BytesForPeople(memory.total), ", ")
                        : std::string(),
                   BytesForPeople(memory.free), " free); lower max_batch_size (",
                   request.options.max_batch_size, "), max_length (", request.options.max_length,
                   ") or prefill_chunk_size (", request.options.prefill_chunk_size,
                   request.kv_bytes.has_value() ? "), lower kv_cache_memory" : ")",
                   cuda ? ", raise memory_fraction" : "", ", or take a smaller model"));
}

// Bytes that all of the device's users together may have taken when this one is done, less what is
// taken now.
uint64_t Allowed(const MemoryRequest& request, const DeviceMemory& memory) {
  if (memory.backend != "cuda") return memory.free;
  const auto share = static_cast<uint64_t>(request.fraction * static_cast<double>(memory.total));
  const uint64_t taken = memory.total - std::min(memory.free, memory.total);
  return share - std::min(share, taken);
}

}  // namespace

uint64_t GraphReserve(std::string_view backend, const ExecutorOptions& options) {
  if (backend != "cuda" || !UsesGraphs(options.mode)) return 0;
  return (static_cast<uint64_t>(options.max_batch_size) + PrefillSizes(options).all().size()) *
         kGraphBytes;
}

DeviceMemory DeviceMemory::Of(const Device& device) {
  return {std::string(device.backend()), device.FreeBytes(), device.TotalBytes()};
}

absl::StatusOr<MemoryTable> PlanDeviceMemory(const MemoryRequest& request,
                                             const DeviceMemory& memory) {
  const ExecutorOptions& options = request.options;
  const bool cuda = memory.backend == "cuda";
  MemoryTable table = FixedRows(request, cuda);
  table.allowed = Allowed(request, memory);
  const uint64_t fixed = table.Planned();
  const uint64_t rest = table.allowed - std::min(table.allowed, fixed);
  const uint64_t kv_bytes = request.kv_bytes.has_value()
                                ? static_cast<uint64_t>(*request.kv_bytes)
                                : (cuda ? rest : std::min(rest, memory.free / 4));
  absl::StatusOr<std::vector<int32_t>> blocks = PlanKvBlocks(request.descriptor, options, kv_bytes);
  if (!blocks.ok()) {
    if (!absl::IsResourceExhausted(blocks.status())) return blocks.status();
    const std::string why(blocks.status().message());
    if (request.kv_bytes.has_value()) {
      return absl::ResourceExhaustedError(
          absl::StrCat(why, "; raise kv_cache_memory or lower max_length"));
    }
    return DoesNotFit(table, request, memory, absl::StrCat("; ", why));
  }
  for (size_t g = 0; g < blocks->size(); ++g) {
    const auto block = static_cast<uint64_t>(KvBlockBytes(request.descriptor, static_cast<int>(g),
                                                          options.block_size, options.kv_dtype));
    table.rows.push_back({GroupName(request.descriptor.groups[g]), block * (*blocks)[g],
                          absl::StrCat((*blocks)[g], " blocks of ", options.block_size, " slots, ",
                                       std::string(NameOf(options.kv_dtype)))});
  }
  table.kv_blocks = *std::move(blocks);
  if (table.Planned() > table.allowed) return DoesNotFit(table, request, memory, "");
  return table;
}

uint64_t MemoryTable::Planned() const {
  uint64_t sum = 0;
  for (const Row& row : rows) sum += row.bytes;
  return sum;
}

std::vector<std::string> MemoryTable::Lines() const {
  std::vector<std::string> lines;
  for (const Row& row : rows) {
    lines.push_back(
        absl::StrFormat("%-20s %12s  %s", row.use, BytesForPeople(row.bytes), row.detail));
  }
  lines.push_back(absl::StrFormat("%-20s %12s  of %s that may be taken", "in all",
                                  BytesForPeople(Planned()), BytesForPeople(allowed)));
  return lines;
}

std::string MemoryInUse(const Device& device) {
  std::vector<std::string> parts;
  for (int use = 0; use < kMemoryUses; ++use) {
    parts.push_back(absl::StrCat(std::string(NameOf(static_cast<MemoryUse>(use))), " ",
                                 BytesForPeople(device.counters().bytes[use].load())));
  }
  return absl::StrJoin(parts, ", ");
}

std::string BytesForPeople(uint64_t bytes) {
  const double mebibytes = static_cast<double>(bytes) / (1 << 20);
  return mebibytes < 10240 ? absl::StrFormat("%.1f MiB", mebibytes)
                           : absl::StrFormat("%.2f GiB", mebibytes / 1024);
}

}  // namespace sirocco
