// Arrays that kernels on the emulated GPU get, of their exact size between two walls that nobody
// writes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/kernels/emulated/gpu.h"

namespace sirocco::emulated {

// Every byte is 0xff, which is NaN. Where kernels write what is in it (`is_mutable`), the memory is
// the GPU's: it goes with FreeMemory.
template <typename T>
class Guarded {
 public:
  explicit Guarded(size_t count, bool is_mutable = true)
      : count_(count), own_(is_mutable ? 0 : Bytes()) {
    unsigned char* const at =
        is_mutable ? static_cast<unsigned char*>(AllocateMemory(Bytes())) : own_.data();
    const uintptr_t address = reinterpret_cast<uintptr_t>(at);
    wall_ = at + (kAlignment - address % kAlignment) % kAlignment;
    std::memset(wall_, 0xff, kWall + count * sizeof(T) + kWall);
    data_ = reinterpret_cast<T*>(wall_ + kWall);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    EXPECT_TRUE(IsWhole(wall_)) << "before the first";
    EXPECT_TRUE(IsWhole(reinterpret_cast<const unsigned char*>(end()))) << "behind the last";
  }
  T* data() const { return data_; }
  size_t size() const { return count_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + count_; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr size_t kWall = 4096, kAlignment = 256;
  static bool IsWhole(const unsigned char* wall) {
    return std::all_of(wall, wall + kWall, [](unsigned char x) { return x == 0xff; });
  }
  size_t Bytes() const { return kWall + count_ * sizeof(T) + kWall + kAlignment; }

  size_t count_;
  std::vector<unsigned char> own_;
  unsigned char* wall_;
  T* data_;
};

}  // namespace sirocco::emulated
