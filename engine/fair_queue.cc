#include "engine/fair_queue.h"

#include <algorithm>
#include <limits>
#include <tuple>

namespace sirocco {

ClientShare* FairQueue::Join(const std::string& client) {
  auto it = clients_.find(client);
  if (it == clients_.end()) {
    ForgetIdle();
    it = clients_.emplace(client, ClientShare{}).first;
    const auto weight = weights_.find(client);
    if (weight != weights_.end()) it->second.weight = weight->second;
  }
  ClientShare& share = it->second;
  if (share.requests++ == 0) {
    ++wanting_;
    wanting_weight_ += share.weight;
  }
  share.served = std::max(share.served, level_ - head_start_);
  return &share;
}

void FairQueue::Leave(ClientShare* share) {
  if (--share->requests > 0) return;
  --wanting_;
  // Exactly 0 where nobody is left, whatever was rounded.
  wanting_weight_ = wanting_ == 0 ? 0 : wanting_weight_ - share->weight;
  if (wanting_ != 1) return;
  // Who is alone has all that it could have.
  for (auto& [name, other] : clients_) {
    if (other.requests > 0) other.served = std::max(other.served, level_);
  }
}

void FairQueue::Serve(ClientShare* share, int32_t tokens) {
  share->served += tokens / share->weight;
  // A sequence that was cancelled may have a row when its client has left.
  if (wanting_ == 0) return;
  double rise = tokens / wanting_weight_;
  // Who is alone and behind comes up to the level first: nobody is kept waiting by its head start.
  if (wanting_ == 1 && share->requests > 0) rise = std::clamp(share->served - level_, 0.0, rise);
  level_ += rise;
}

// Names are the clients' own: remembered are those that are there, and those that have been given
// more than their share, until that is made up for.
void FairQueue::ForgetIdle() {
  std::erase_if(clients_, [this](const auto& client) {
    const ClientShare& share = client.second;
    return share.requests == 0 && share.lanes == 0 && share.served <= level_ - head_start_;
  });
}

void FairQueue::Add(const ClientShare* share, int32_t priority, uint64_t number, int32_t tokens) {
  waiting_[share].emplace(PlaceOf(priority, number), tokens);
}

void FairQueue::Remove(const ClientShare* share, int32_t priority, uint64_t number) {
  const auto it = waiting_.find(share);
  if (it == waiting_.end()) return;
  it->second.erase(PlaceOf(priority, number));
  if (it->second.empty()) waiting_.erase(it);
}

void FairQueue::Clear() { waiting_.clear(); }

uint64_t FairQueue::front() const {
  // Of two that were given as much, the one with fewer lanes will soon have been given less.
  const auto place = [](const auto& client) {
    const auto& [share, waiting] = client;
    const Place& first = waiting.begin()->first;
    return std::tuple(first.first, share->served, share->Lanes(0), first.second);
  };
  const auto first =
      std::min_element(waiting_.begin(), waiting_.end(),
                       [&](const auto& a, const auto& b) { return place(a) < place(b); });
  return first->second.begin()->first.second;
}

int64_t FairQueue::TokensBefore(const ClientShare* share, int32_t priority, int32_t tokens) const {
  const auto sum = [](Waiting::const_iterator begin, Waiting::const_iterator end) {
    int64_t total = 0;
    for (; begin != end; ++begin) total += begin->second;
    return total;
  };
  const uint64_t last = std::numeric_limits<uint64_t>::max();
  int64_t own = 0;
  if (const auto it = waiting_.find(share); it != waiting_.end()) {
    own = sum(it->second.begin(), it->second.lower_bound(PlaceOf(priority, last)));
  }
  int64_t before = own;
  for (const auto& [other, requests] : waiting_) {
    if (other == share) continue;
    // Of its higher priorities all; of this one as much as makes the two equal.
    const auto higher = requests.lower_bound(PlaceOf(priority, 0));
    const auto same = requests.lower_bound(PlaceOf(priority, last));
    const double level = share->served + static_cast<double>(own + tokens) / share->weight;
    const double due = std::max(0.0, (level - other->served) * other->weight);
    before += sum(requests.begin(), higher);
    before += static_cast<int64_t>(std::min(due, static_cast<double>(sum(higher, same))));
  }
  return before;
}

}  // namespace sirocco
