// What a rendering may use, whatever the template does: steps, memory, nesting.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace sirocco::jinja {

// One rendering; one thread. Must outlive every object made with it.
class Meter {
 public:
  Meter(int64_t max_steps, size_t max_memory_bytes, int32_t max_depth)
      : max_steps_(max_steps), max_memory_bytes_(max_memory_bytes), max_depth_(max_depth) {}
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  int32_t max_depth() const { return max_depth_; }
  size_t memory_left() const { return max_memory_bytes_ - memory_bytes_; }

  // RESOURCE_EXHAUSTED once the steps are used up, then and ever after.
  absl::Status Step(int64_t steps = 1) {
    steps_ = steps > max_steps_ - steps_ ? max_steps_ : steps_ + steps;
    return steps_ < max_steps_ ? absl::OkStatus() : StepsExhausted();
  }
  // For loops that cannot return a status: false means that the next Step() fails.
  bool TryStep(int64_t steps = 1) { return Step(steps).ok(); }
  // Work that copies or scans bytes; and work that looks at every character.
  absl::Status StepBytes(size_t bytes) { return Step(1 + static_cast<int64_t>(bytes >> 9)); }
  absl::Status StepCharacters(size_t bytes) { return Step(1 + static_cast<int64_t>(bytes >> 4)); }

  absl::Status Acquire(size_t bytes) {
    if (bytes > memory_left()) return MemoryExhausted();
    memory_bytes_ += bytes;
    return absl::OkStatus();
  }
  void Release(size_t bytes) { memory_bytes_ -= bytes; }

  absl::Status StepsExhausted() const;
  absl::Status MemoryExhausted() const;
  absl::Status DepthExhausted() const;

 private:
  const int64_t max_steps_;
  const size_t max_memory_bytes_;
  const int32_t max_depth_;
  int64_t steps_ = 0;
  size_t memory_bytes_ = 0;
};

// Memory given back when the object that holds it goes.
class Lease {
 public:
  Lease() = default;
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() { GiveBack(); }
  void GiveBack() {
    if (meter_ != nullptr) meter_->Release(bytes_);
    bytes_ = 0;
  }
  // Takes hold of more, of the same meter always.
  absl::Status Grow(Meter* meter, size_t bytes) {
    const absl::Status status = meter->Acquire(bytes);
    if (!status.ok()) return status;
    meter_ = meter;
    bytes_ += bytes;
    return absl::OkStatus();
  }
  size_t bytes() const { return bytes_; }

 private:
  Meter* meter_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace sirocco::jinja
