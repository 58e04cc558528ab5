// The requests that have sequences to start, in the order in which they are served: the higher
// priority first; then the client that has been given the fewest tokens for its weight; then who
// came first. Only clients that want something compete: one that comes (again) begins where the
// least served of those that are there is, so that nobody saves up, nor pays for a time alone.
// (Y. Sheng et al., Fairness in Serving Large Language Models, OSDI 2024: a virtual token counter.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace sirocco {

// What a client, as requests name it, has of the engine.
struct ClientShare {
  double weight = 1;
  double served = 0;     // tokens computed for it, over its weight
  int32_t requests = 0;  // of it, in the engine
  int32_t lanes = 0;     // that its sequences have

  // The lanes for its weight, if it had `more` of them.
  double Lanes(int32_t more) const { return (lanes + more) / weight; }

  void Serve(int32_t tokens) { served += tokens / weight; }
};

// Engine thread.
class FairQueue {
 public:
  // Clients that are not named have the weight 1. All are positive.
  explicit FairQueue(std::map<std::string, double> weights) : weights_(std::move(weights)) {}

  // A request of this client has come, or gone. The share stays where it is in between.
  ClientShare* Join(const std::string& client);
  static void Leave(ClientShare* share) { --share->requests; }

  // `tokens`: of its prompt.
  void Add(const ClientShare* share, int32_t priority, uint64_t number, int32_t tokens);
  void Remove(const ClientShare* share, int32_t priority, uint64_t number);
  void Clear();

  bool empty() const { return waiting_.empty(); }
  size_t clients() const { return clients_.size(); }  // that are remembered
  uint64_t front() const;
  // About how many prompt tokens of those that wait will be served before a prompt of so many
  // tokens that comes now.
  int64_t TokensBefore(const ClientShare* share, int32_t priority, int32_t tokens) const;

 private:
  // Of one client: the higher priority first, then who came first.
  using Place = std::pair<int64_t, uint64_t>;
  using Waiting = std::map<Place, int32_t>;  // to prompt tokens
  static Place PlaceOf(int32_t priority, uint64_t number) { return {-int64_t{priority}, number}; }
  void ForgetIdle();

  std::map<std::string, double> weights_;
  std::map<std::string, ClientShare> clients_;
  std::map<const ClientShare*, Waiting> waiting_;  // none of them empty
};

}  // namespace sirocco
