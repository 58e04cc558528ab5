// The requests that have sequences to start, in the order in which they are served: the higher
// priority first, then who came first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

namespace sirocco {

class RequestQueue {
 public:
  void Add(uint64_t number, int32_t priority) { order_.emplace(Key(priority, number), number); }
  void Remove(uint64_t number, int32_t priority) { order_.erase(Key(priority, number)); }
  void Clear() { order_.clear(); }

  bool empty() const { return order_.empty(); }
  uint64_t front() const { return order_.begin()->second; }

 private:
  using Place = std::pair<int64_t, uint64_t>;
  static Place Key(int32_t priority, uint64_t number) { return {-int64_t{priority}, number}; }

  std::map<Place, uint64_t> order_;
};

}  // namespace sirocco
