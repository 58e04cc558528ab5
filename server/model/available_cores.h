#pragma once

namespace sirocco {

// Cores that this process may run on, and less where its container's quota is less; at least 1.
int AvailableCores();

}  // namespace sirocco
