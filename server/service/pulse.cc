#include "server/service/pulse.h"

#include <utility>

namespace sirocco {

Pulse::Pulse(grpc::Server& server)
    : stub_(grpc::health::v1::Health::NewStub(server.InProcessChannel(grpc::ChannelArguments()))) {}

Pulse::~Pulse() {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return !under_way_; });
}

bool Pulse::Beat() {
  bool came_back = false;
  {
    const std::lock_guard lock(mutex_);
    if (under_way_) return false;
    under_way_ = true;
    came_back = std::exchange(came_back_, false);
  }
  context_.emplace();
  stub_->async()->Check(&*context_, &request_, &response_, [this](const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    under_way_ = false;
    came_back_ = status.ok();
    ended_.notify_all();
  });
  return came_back;
}

}  // namespace sirocco
