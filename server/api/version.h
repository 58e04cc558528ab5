// The one place that says which version this is.
#pragma once

namespace sirocco {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace sirocco
