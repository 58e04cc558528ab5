#include "engine/delivery.h"

#include <utility>
#include <variant>

namespace sirocco {
namespace {

// Room for so many events is kept in any case.
constexpr size_t kLeastKept = 1024;

template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

}  // namespace

Delivery::Delivery(const Tokenizer* tokenizer, EngineObserver* observer, int threads,
                   StringStop string_stop)
    : tokenizer_(tokenizer), observer_(observer), string_stop_(std::move(string_stop)) {
  for (int i = 0; i < threads; ++i) workers_.push_back(std::make_unique<Worker>());
}

void Delivery::Start() {
  for (const std::unique_ptr<Worker>& worker : workers_) {
    worker->thread = std::thread([this, w = worker.get()] { Run(*w); });
  }
}

Delivery::~Delivery() {
  for (const std::unique_ptr<Worker>& worker : workers_) {
    {
      const std::lock_guard lock(worker->mutex);
      worker->stop = true;
    }
    worker->wake.notify_one();
    if (worker->thread.joinable()) worker->thread.join();
  }
}

void Delivery::Open(std::shared_ptr<const RequestContext> context) {
  open_.fetch_add(1, std::memory_order_relaxed);
  const uint64_t number = context->number;
  Worker& worker = WorkerOf(number);
  const std::lock_guard lock(worker.mutex);
  // Nothing is to be delivered yet: its thread need not wake.
  worker.events.push_back({number, OpenedEvent{std::move(context)}});
}

void Delivery::Post(std::vector<Event>* events) {
  for (const std::unique_ptr<Worker>& worker : workers_) {
    bool any = false;
    {
      const std::lock_guard lock(worker->mutex);
      for (Event& event : *events) {
        if (&WorkerOf(event.request) != worker.get()) continue;
        worker->events.push_back(std::move(event));
        any = true;
      }
    }
    if (any) worker->wake.notify_one();
  }
  events->clear();
}

void Delivery::EndAll(const absl::Status& status) {
  for (const std::unique_ptr<Worker>& worker : workers_) {
    {
      const std::lock_guard lock(worker->mutex);
      if (worker->end_all.ok()) worker->end_all = status;
    }
    worker->wake.notify_one();
  }
}

bool Delivery::WaitUntilAllDone(std::optional<Clock::time_point> until) {
  std::unique_lock lock(done_mutex_);
  const auto all_done = [&] { return open() == 0; };
  if (until) return all_done_.wait_until(lock, *until, all_done);
  all_done_.wait(lock, all_done);
  return true;
}

void Delivery::Run(Worker& worker) {
  std::vector<Event> events;
  while (true) {
    absl::Status end_all;
    {
      std::unique_lock lock(worker.mutex);
      worker.wake.wait(
          lock, [&] { return worker.stop || !worker.events.empty() || !worker.end_all.ok(); });
      if (worker.stop && worker.events.empty() && worker.end_all.ok()) return;
      events.swap(worker.events);
      end_all = std::exchange(worker.end_all, absl::OkStatus());
    }
    Process(worker, events);
    // The room that a machine without time for this thread made necessary once.
    const bool too_roomy = events.capacity() > kLeastKept && events.size() < events.capacity() / 4;
    events.clear();
    if (too_roomy) events.shrink_to_fit();
    if (end_all.ok()) continue;
    const Clock::time_point now = Clock::now();
    while (!worker.requests.empty()) {
      RequestOutput& output = worker.requests.begin()->second;
      output.On(EndedEvent{.status = end_all, .time = now});
      Flush(worker, output);
    }
  }
}

void Delivery::Process(Worker& worker, std::vector<Event>& events) {
  for (Event& event : events) {
    if (auto* opened = std::get_if<OpenedEvent>(&event.what); opened != nullptr) {
      worker.requests.try_emplace(event.request, std::move(opened->context), tokenizer_, observer_);
      continue;
    }
    const auto it = worker.requests.find(event.request);
    if (it == worker.requests.end() || it->second.done()) continue;
    RequestOutput& output = it->second;
    if (output.Touch()) worker.touched.push_back(&output);
    std::visit(Overloaded{[](OpenedEvent&&) {},
                          [&](TokenEvent&& token) {
                            if (!output.On(token)) string_stop_(event.request, token.index);
                          },
                          [&](auto&& other) { output.On(std::move(other)); }},
               std::move(event.what));
  }
  for (RequestOutput* output : worker.touched) Flush(worker, *output);
  worker.touched.clear();
}

void Delivery::Flush(Worker& worker, RequestOutput& output) {
  output.Flush();
  if (!output.done()) return;
  worker.requests.erase(output.context().number);
  if (open_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  const std::lock_guard lock(done_mutex_);
  all_done_.notify_all();
}

}  // namespace sirocco
