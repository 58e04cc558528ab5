// What operations are made for at most, whatever the backend.
#pragma once

#include <cstdint>

namespace sirocco {

// Of a layer.
inline constexpr int32_t kMaxExperts = 1024;

}  // namespace sirocco
