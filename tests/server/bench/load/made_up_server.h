// A server and its time, both made up: answers take what the test says, to the nanosecond, and
// nothing waits for a real clock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <queue>
#include <utility>
#include <vector>

#include "server/bench/load/load_world.h"

namespace sirocco {

class MadeUpServer final : public LoadClock, public LoadTarget {
 public:
  int32_t slots = 1000;       // requests that are served together; the others queue
  double first_token = 0.01;  // seconds from a slot to the first token
  double each_token = 0.002;
  uint32_t tokens_an_event = 1;
  double oversleep = 0;                       // of the client: SleepUntil returns so late
  std::pair<double, double> stalls = {0, 0};  // no request gets a slot in between
  // The status of a request by its index; it ends at once unless OK.
  std::function<absl::Status(uint64_t)> status = [](uint64_t) { return absl::OkStatus(); };

  uint64_t sent() const { return sent_; }

  double Now() override { return now_; }
  void SleepUntil(double time) override {
    if (!events_.empty() && events_.begin()->first <= time) {
      const auto event = events_.begin();
      now_ = std::max(now_, event->first);
      const std::function<void()> happens = std::move(event->second);
      events_.erase(event);
      happens();
    } else {
      now_ = std::max(now_, time + oversleep);
    }
  }
  void Wake() override {}

  void Send(const LoadRequest& request, AnswerListener& listener) override {
    ++sent_;
    Call call;
    call.answer.request = request;
    call.answer.sent = now_;
    call.answer.status = status(request.index);
    call.listener = &listener;
    if (!call.answer.status.ok()) {
      At(now_, [this, call, now = now_] { End(call, now); });
      return;
    }
    waiting_.push(std::move(call));
    Serve();
  }

 private:
  struct Call {
    Answer answer;
    AnswerListener* listener = nullptr;
  };

  void At(double time, std::function<void()> happens) { events_.emplace(time, std::move(happens)); }

  void Serve() {
    if (now_ >= stalls.first && now_ < stalls.second) {
      At(stalls.second, [this] { Serve(); });
      return;
    }
    while (busy_ < slots && !waiting_.empty()) {
      ++busy_;
      Call call = std::move(waiting_.front());
      waiting_.pop();
      double time = now_ + first_token;
      auto left = static_cast<uint32_t>(call.answer.request.output_length);
      while (left > 0) {
        const uint32_t count = std::min(left, tokens_an_event);
        call.answer.tokens.push_back({time, count});
        ++call.answer.events;
        At(time, [listener = call.listener, count] { listener->OnTokens(count); });
        left -= count;
        if (left > 0) time += each_token * std::min(left, tokens_an_event);
      }
      At(time, [this, call, time] {
        --busy_;
        End(call, time);
        Serve();
      });
    }
  }

  // `time`: also where the client slept longer.
  void End(Call call, double time) {
    call.answer.ended = time;
    call.listener->OnEnd(call.answer);
  }

  double now_ = 1000;  // a clock begins anywhere
  uint64_t sent_ = 0;
  int32_t busy_ = 0;
  std::queue<Call> waiting_;
  std::multimap<double, std::function<void()>> events_;  // those of one time in their order
};

}  // namespace sirocco
