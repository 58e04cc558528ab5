// A plan: the ordered operations of a step or of a part of one, composed once at start-up on fixed
// buffers. Only the number of rows is given when it runs, so running composes and allocates
// nothing, and a recording of it is the same work as running it.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "graphs/executor.h"
#include "kernels/ops.h"

namespace sirocco {

// Numbers of rows, both ends included.
struct RowRange {
  int32_t least = 1;
  int32_t most = std::numeric_limits<int32_t>::max();

  bool Has(int32_t rows) const { return rows >= least && rows <= most; }
};

class Plan {
 public:
  struct Entry {
    std::string part;  // "prologue", "layer 0", "layer" (any layer), "epilogue"
    Operation operation;
    RowRange rows = {};  // of steps that it belongs to
    int32_t layer = kNoLayer;
  };
  static constexpr int32_t kNoLayer = -1;

  // Its `rows` are set by Run.
  void Add(std::string_view part, Operation operation) {
    entries_.push_back({std::string(part), std::move(operation), {}, layer_});
  }
  // What is added from here on belongs to this layer; kNoLayer: to none, or to any.
  void SetLayer(int32_t layer) { layer_ = layer; }

  // All of `plan` behind what is here.
  void Append(const Plan& plan) {
    entries_.insert(entries_.end(), plan.entries_.begin(), plan.entries_.end());
  }
  // The same, for steps of these numbers of rows alone.
  void Append(Plan plan, RowRange rows) {
    for (Entry& entry : plan.entries_) entry.rows = rows;
    Append(plan);
  }

  // Issues (or, while the device records, records) for `rows` rows every operation that belongs to
  // so many, in order.
  absl::Status Run(Ops& ops, int32_t rows) const;
  // The same without the operations of layers that `layers`, by layer, does not mark.
  absl::Status RunSome(Ops& ops, int32_t rows, const std::vector<bool>& layers) const;

  const std::vector<Entry>& entries() const { return entries_; }

  // Appends one line for people an entry.
  void Describe(std::vector<PlanEntry>& out) const;

 private:
  std::vector<Entry> entries_;
  int32_t layer_ = kNoLayer;
};

// An operation's shapes and types, for people.
std::string DetailOf(const Operation& operation);

}  // namespace sirocco
