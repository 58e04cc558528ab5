// Tensors of a test: values on the host, as the device will see them, and the device's copy.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/kernels/devices.h"

namespace sirocco {

// Seeded values, the same on every machine.
class Values {
 public:
  explicit Values(uint32_t seed) : engine_(seed) {}
  // About uniform in [-scale, scale].
  std::vector<float> Floats(int64_t count, float scale = 1.0f);
  // In [0, bound).
  int32_t Below(int32_t bound) { return static_cast<int32_t>(engine_() % bound); }
  // 0 ... count - 1 in a random order.
  std::vector<int32_t> Permutation(int32_t count);

 private:
  std::mt19937 engine_;
};

// `values` after a round trip through `dtype`.
std::vector<float> Rounded(std::vector<float> values, DType dtype);

// Memory of one test on its device. Failures to allocate or copy end the test.
class Memory {
 public:
  explicit Memory(Device& device) : device_(device) {}

  void* Raw(const void* host, size_t bytes);  // null `host`: zeros
  template <typename T>
  T* Upload(const std::vector<T>& values) {
    return static_cast<T*>(Raw(values.data(), values.size() * sizeof(T)));
  }
  // As `dtype`.
  void* Upload(const std::vector<float>& values, DType dtype);
  // In blocks too; the device packs them.
  Matrix Weights(const std::vector<float>& values, DType dtype, int32_t rows, int32_t cols);
  Rows Activations(const std::vector<float>& values, DType dtype, int32_t width);
  Rows Empty(int32_t rows, DType dtype, int32_t width);
  // Rows of the residual stream, and what is added to it: float32 on every device.
  Rows Residual(const std::vector<float>& values, int32_t width) {
    return Activations(values, DType::kFloat32, width);
  }
  Rows EmptyResidual(int32_t rows, int32_t width) { return Empty(rows, DType::kFloat32, width); }

  template <typename T>
  std::vector<T> Download(const T* from, int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    Get(values.data(), from, values.size() * sizeof(T));
    return values;
  }
  std::vector<float> Download(const void* from, DType dtype, int64_t count);
  std::vector<float> Download(const Rows& rows, int32_t count) {
    return Download(rows.data, rows.dtype, int64_t{count} * rows.width);
  }

 private:
  void Get(void* host, const void* from, size_t bytes);

  Device& device_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

// Each element of `got` is within `tolerance` times the largest magnitude of `want` of its own.
void ExpectNear(const std::vector<float>& got, const std::vector<double>& want, double tolerance);

// The same with the largest magnitude of each row of `width` for the row: where rows differ in
// size, a small one cannot hide an error behind a large one.
void ExpectRowsNear(const std::vector<float>& got, const std::vector<double>& want, int32_t width,
                    double tolerance);

// The relative error that a result in `activations` may have.
double ToleranceOf(DType activations);

}  // namespace sirocco
