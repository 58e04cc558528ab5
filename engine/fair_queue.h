// The requests that have sequences to start, in the order in which they are served: the higher
// priority first; then the client that has been given the fewest tokens for its weight; then who
// came first. (Y. Sheng et al., Fairness in Serving Large Language Models, OSDI 2024: a virtual
// token counter.)
//
// Only clients that want something compete. What each would have had by now, had all that wanted
// something always had their shares, is the level (virtual time, as of fair queueing). Who asks for
// something is put no further behind it than the head start: so nobody saves up, but one that asks
// now and then has its first tokens before those who always ask. One that was given more than its
// share stays ahead of the level until that has come up, whether it leaves meanwhile or not; who is
// alone takes the level along, and so pays nothing for that time.
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
  double served = 0;     // tokens computed for it, over its weight, and what it was forgiven
  int32_t requests = 0;  // of it, in the engine
  int32_t lanes = 0;     // that its sequences have

  // The lanes for its weight, if it had `more` of them.
  double Lanes(int32_t more) const { return (lanes + more) / weight; }
};

// Engine thread.
class FairQueue {
 public:
  // Clients that are not named have the weight 1. All are positive. `head_start`: tokens, of a
  // client of the weight 1.
  explicit FairQueue(std::map<std::string, double> weights, int32_t head_start = 0)
      : weights_(std::move(weights)), head_start_(head_start) {}

  // A request of this client has come, or gone. The share stays where it is in between.
  ClientShare* Join(const std::string& client);
  void Leave(ClientShare* share);
  // So many tokens were computed for it.
  void Serve(ClientShare* share, int32_t tokens);

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
  const double head_start_;
  double level_ = 0;
  int32_t wanting_ = 0;  // clients that have requests
  double wanting_weight_ = 0;
  std::map<std::string, ClientShare> clients_;
  std::map<const ClientShare*, Waiting> waiting_;  // none of them empty
};

}  // namespace sirocco
