#include "graphs/prefill_graphs.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "graphs/graph_pool.h"
#include "graphs/stopwatch.h"

namespace sirocco {

absl::StatusOr<PrefillGraphs> PrefillGraphs::Capture(Device& device, const Plan& pass,
                                                     std::span<const int32_t> sizes) {
  const Stopwatch watch;
  const uint64_t bytes_before = GraphBytes(device);
  PrefillGraphs graphs;
  graphs.graphs_.resize(sizes.size());
  for (size_t i = sizes.size(); i-- > 0;) {
    absl::StatusOr<std::unique_ptr<Recording>> recording = Record(device, pass, sizes[i]);
    if (!recording.ok()) {
      return absl::Status(recording.status().code(),
                          absl::StrCat("the graph of a prefill of ", sizes[i],
                                       " rows: ", std::string(recording.status().message())));
    }
    graphs.graphs_[i] = {sizes[i], *std::move(recording)};
  }
  graphs.bytes_ = GraphBytes(device) - bytes_before;
  graphs.seconds_ = watch.Seconds();
  return graphs;
}

const Recording* PrefillGraphs::Find(int32_t rows) const {
  const auto found = std::ranges::lower_bound(graphs_, rows, {}, &Graph::rows);
  return found == graphs_.end() || found->rows != rows ? nullptr : found->recording.get();
}

}  // namespace sirocco
