// Lays arrays out one after the other in one piece of memory, each aligned to 256 bytes (what
// vector loads and bulk copies want). Without a base it only counts, and hands out null pointers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sirocco {

class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<std::byte*>(base)) {}

  template <typename T>
  T* Take(int64_t count) {
    return static_cast<T*>(TakeBytes(static_cast<uint64_t>(count) * sizeof(T)));
  }

  void* TakeBytes(uint64_t bytes) {
    void* place = base_ == nullptr ? nullptr : base_ + bytes_;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return place;
  }

  uint64_t bytes() const { return bytes_; }

 private:
  static constexpr uint64_t kAlignment = 256;
  std::byte* base_;
  uint64_t bytes_ = 0;
};

}  // namespace sirocco
