#include "kernels/device.h"

namespace sirocco {

std::string_view NameOf(MemoryUse use) {
  switch (use) {
    case MemoryUse::kWeights:
      return "weights";
    case MemoryUse::kWorkspace:
      return "workspace";
    case MemoryUse::kLanes:
      return "lanes";
    case MemoryUse::kKv:
      return "kv";
    case MemoryUse::kGraphs:
      return "graphs";
  }
  return "?";
}

}  // namespace sirocco
