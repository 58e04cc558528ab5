#include "tests/kernels/tensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>

#include "tests/testing/blocks.h"

namespace sirocco {
namespace {

// Helpers that return values cannot use ASSERT.
void MustBeOk(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "test memory: " << status << std::endl;
  std::abort();
}

// By search among the finite values, whose bits are in their order: plainly right.
uint16_t ToFloat16(float value) {
  if (std::isnan(value)) return 0x7e00;
  if (std::isinf(value)) return value < 0 ? 0xfc00 : 0x7c00;
  constexpr uint16_t kLargest = 0x7bff;
  const double magnitude = std::fabs(value);
  uint16_t low = 0;  // the largest that is not above
  for (uint16_t step = 0x4000; step > 0; step /= 2) {
    const uint16_t next = low + step;
    if (next <= kLargest && Float16ToFloat(next) <= magnitude) low = next;
  }
  const uint16_t high = std::min<uint16_t>(low + 1, kLargest);
  const double below = magnitude - Float16ToFloat(low);
  const double above = Float16ToFloat(high) - magnitude;
  const bool up = above < below || (above == below && low % 2 == 1);
  const uint16_t best = up ? high : low;
  return value < 0 ? best | 0x8000 : best;
}

std::vector<uint16_t> Narrow(const std::vector<float>& values, DType dtype) {
  std::vector<uint16_t> narrow;
  narrow.reserve(values.size());
  for (const float value : values) {
    narrow.push_back(dtype == DType::kBFloat16 ? BFloat16::FromFloat(value).bits
                                               : ToFloat16(value));
  }
  return narrow;
}

std::vector<float> Widen(const std::vector<uint16_t>& bits, DType dtype) {
  std::vector<float> values;
  values.reserve(bits.size());
  for (const uint16_t b : bits) {
    values.push_back(dtype == DType::kBFloat16 ? BFloat16{b}.ToFloat() : Float16ToFloat(b));
  }
  return values;
}

}  // namespace

std::vector<float> Values::Floats(int64_t count, float scale) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    value = scale * (static_cast<float>(engine_() >> 8) * 0x1p-23f - 1.0f);
  }
  return values;
}

std::vector<int32_t> Values::Permutation(int32_t count) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) order[i] = i;
  for (int32_t i = count - 1; i > 0; --i) std::swap(order[i], order[Below(i + 1)]);
  return order;
}

std::vector<float> Rounded(std::vector<float> values, DType dtype) {
  if (InBlocks(dtype)) return DecodeBlocks(EncodeBlocks(values, dtype), dtype);
  return dtype == DType::kFloat32 ? values : Widen(Narrow(values, dtype), dtype);
}

void* Memory::Raw(const void* host, size_t bytes) {
  absl::StatusOr<std::unique_ptr<Buffer>> buffer =
      device_.Allocate(std::max<size_t>(bytes, 1), MemoryUse::kWorkspace);
  MustBeOk(buffer.status());
  buffers_.push_back(*std::move(buffer));
  void* data = buffers_.back()->data();
  if (host != nullptr) {
    MustBeOk(device_.CopyToDevice(data, host, bytes));
    MustBeOk(device_.Synchronize());
  }
  return data;
}

void* Memory::Upload(const std::vector<float>& values, DType dtype) {
  if (dtype == DType::kFloat32) return Upload(values);
  return Upload(Narrow(values, dtype));
}

Matrix Memory::Weights(const std::vector<float>& values, DType dtype, int32_t rows, int32_t cols) {
  const void* data = InBlocks(dtype) ? Upload(EncodeBlocks(values, dtype)) : Upload(values, dtype);
  const Matrix matrix = {data, dtype, rows, cols};
  MustBeOk(device_.Pack(matrix));
  return matrix;
}

Rows Memory::Activations(const std::vector<float>& values, DType dtype, int32_t width) {
  return {Upload(values, dtype), dtype, width};
}

Rows Memory::Empty(int32_t rows, DType dtype, int32_t width) {
  return {Raw(nullptr, int64_t{rows} * width * BytesOf(dtype)), dtype, width};
}

std::vector<float> Memory::Download(const void* from, DType dtype, int64_t count) {
  if (dtype == DType::kFloat32) return Download(static_cast<const float*>(from), count);
  return Widen(Download(static_cast<const uint16_t*>(from), count), dtype);
}

void Memory::Get(void* host, const void* from, size_t bytes) {
  MustBeOk(device_.CopyToHost(host, from, bytes));
  MustBeOk(device_.Synchronize());
}

void ExpectNear(const std::vector<float>& got, const std::vector<double>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  double scale = 0;
  for (const double value : want) scale = std::max(scale, std::fabs(value));
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], tolerance * std::max(scale, 1e-6)) << "element " << i;
  }
}

void ExpectRowsNear(const std::vector<float>& got, const std::vector<double>& want, int32_t width,
                    double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  ASSERT_EQ(want.size() % width, 0u);
  for (size_t first = 0; first < want.size(); first += width) {
    SCOPED_TRACE(::testing::Message() << "row " << first / width);
    ExpectNear({got.begin() + first, got.begin() + first + width},
               {want.begin() + first, want.begin() + first + width}, tolerance);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

double ToleranceOf(DType activations) {
  switch (activations) {
    case DType::kFloat32:
      return 5e-6;
    case DType::kBFloat16:
      return 2e-2;
    case DType::kFloat16:
      return 3e-3;
    default:
      return 0;  // blocks are no activations
  }
}

}  // namespace sirocco
