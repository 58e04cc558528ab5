#include "server/model/available_cores.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <thread>

namespace sirocco {

int AvailableCores() {
  int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  // cgroup v2, as a container sees its own: "QUOTA PERIOD" in microseconds, or "max PERIOD".
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (in >> quota >> period && period > 0) {
    cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(quota / period))));
  }
  return cores;
}

}  // namespace sirocco
