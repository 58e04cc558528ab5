// Many requests on an engine at once, for a thread that waits by poll().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>

#include "absl/status/status.h"
#include "engine/engine.h"

namespace sirocco {

// One thread.
class EngineBatch {
 public:
  // Takes what has come of a request; the last update is `done`.
  using Sink = std::function<void(StreamUpdate update)>;

  // The engine outlives it. Streams that are open when it goes are dropped.
  explicit EngineBatch(Engine& engine);
  ~EngineBatch();
  EngineBatch(const EngineBatch&) = delete;
  EngineBatch& operator=(const EngineBatch&) = delete;

  // RESOURCE_EXHAUSTED: there was no descriptor for it, and it must not be used.
  const absl::Status& status() const;

  // As Engine::Submit. The sink is called by Deliver alone.
  absl::Status Submit(Request request, Sink sink);
  // Requests that were submitted and are not done.
  size_t open() const { return open_.size(); }

  // Readable: Deliver has something to do.
  int fd() const;
  // Gives the sinks what has come. Never waits. A sink may submit.
  void Deliver();

 private:
  // What listeners ring: which streams have something.
  class Bell;

  struct Open {
    std::shared_ptr<TokenStream> stream;
    Sink sink;
  };

  Engine& engine_;
  std::shared_ptr<Bell> bell_;  // listeners have it too
  std::unordered_map<uint64_t, Open> open_;
  uint64_t next_ = 0;
};

}  // namespace sirocco
