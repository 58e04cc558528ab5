#include "server/bench/tune.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/bench/stages.h"
#include "server/bench/workload.h"

namespace sirocco {
namespace {

constexpr int32_t kFewestRows = 16;  // below, tables make no difference

// By weight and type of output: the product of it that has the most rows.
using Products = std::map<std::tuple<const void*, int32_t, DType>, MatMulParams>;

void Add(Device& device, const std::vector<StageTimer::Timed>& step, Products& products) {
  for (const StageTimer::Timed& timed : step) {
    for (const MatMulParams& product : device.ops().ProductsOf(timed.operation)) {
      const Matrix& weight = product.weight;
      MatMulParams& most = products[{weight.data, weight.rows, product.out.dtype}];
      if (product.rows > most.rows) most = product;
    }
  }
}

// Each product for 16, 32, ... rows, up to what it had: its buffers hold no more, and the device
// leaves out what it has no choice of kernels for. Those of one shape follow each other, layer
// after layer, so that no weight is still in a cache when its turn comes.
std::vector<MatMulParams> Variants(const Products& products) {
  std::map<std::tuple<int32_t, int32_t, DType, int32_t>, std::vector<MatMulParams>> by_shape;
  for (const auto& [weight, product] : products) {
    for (int32_t bucket = kFewestRows;; bucket *= 2) {
      MatMulParams p = product;
      p.rows = std::min(bucket, product.rows);
      by_shape[{p.weight.rows, p.weight.cols, p.out.dtype, p.rows}].push_back(p);
      if (bucket >= product.rows) break;
    }
  }
  std::vector<MatMulParams> variants;
  for (const auto& [shape, same] : by_shape) {
    variants.insert(variants.end(), same.begin(), same.end());
  }
  return variants;
}

// What tells entries apart: the GPU and the shape, before the algorithm.
std::string KeyOf(const std::string& entry) { return entry.substr(0, entry.find("}, {")); }

}  // namespace

absl::StatusOr<std::vector<std::string>> TuneModel(Device& device, StageTimer& timer,
                                                   Executor& executor,
                                                   const ModelDescriptor& descriptor, int32_t batch,
                                                   const MeasureOptions& options) {
  const Workload workload(descriptor, executor.options(), batch, options.prompt_length,
                          options.output_length, options.seed);
  if (absl::Status status = workload.Start(executor, false); !status.ok()) return status;
  if (auto prompts = RunPrompts(executor, workload); !prompts.ok()) return prompts.status();
  Step prefill, decode;
  prefill.prefill.chunks = workload.prompts().steps.front();
  decode.decode.lanes = workload.lanes();
  const bool eager = executor.options().mode == Mode::kEager;
  Products products;
  for (const auto& [step, after_prompt] : {std::pair{prefill, false}, std::pair{decode, true}}) {
    if (!after_prompt && !eager) continue;  // the eager executor's
    if (absl::Status status = workload.Start(executor, after_prompt); !status.ok()) return status;
    absl::StatusOr<std::vector<StageTimer::Timed>> timed = TimeStep(timer, executor, step);
    if (!timed.ok()) return timed.status();
    Add(device, *timed, products);
  }
  return device.TuneProducts(Variants(products));
}

std::string MergeKernelTable(std::string_view table, const std::vector<std::string>& entries) {
  std::string head;
  std::map<std::string, std::string> by_key;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(std::string(table), '\n'))) {
    if (line.rfind("{", 0) == 0) {
      by_key[KeyOf(line)] = line;
    } else if (!line.empty()) {
      absl::StrAppend(&head, line, "\n");
    }
  }
  for (const std::string& entry : entries) by_key[KeyOf(entry)] = entry;
  for (const auto& [key, entry] : by_key) absl::StrAppend(&head, entry, "\n");
  return head;
}

}  // namespace sirocco
