// A list that changes from step to step, and its length. The length stands before the items, on the
// host as on the device, so that one copy brings both.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "graphs/carver.h"
#include "kernels/device.h"

namespace sirocco {

template <typename T>
struct Counted {
  int32_t* count = nullptr;  // [1]
  T* items = nullptr;        // [capacity]

  static Counted Take(Carver& carver, int64_t capacity) {
    Counted list;
    list.count = carver.Take<int32_t>(1);
    list.items = carver.Take<T>(capacity);
    return list;
  }
};

// Of `host`, its count and as many items as that says.
template <typename T>
absl::Status Upload(Device& device, const Counted<T>& host, const Counted<T>& to) {
  const auto* const begin = reinterpret_cast<const std::byte*>(host.count);
  const auto* const end = reinterpret_cast<const std::byte*>(host.items + *host.count);
  return device.CopyToDevice(to.count, begin, static_cast<size_t>(end - begin));
}

}  // namespace sirocco
