#include "tests/testing/paths.h"

#include <cstdlib>

namespace sirocco {

std::string GoldenPath(std::string_view relative) {
  const char* runfiles = std::getenv("TEST_SRCDIR");
  const char* workspace = std::getenv("TEST_WORKSPACE");
  std::string root;
  if (runfiles != nullptr && workspace != nullptr) {
    root = std::string(runfiles) + "/" + workspace + "/";
  }
  return root + "tests/goldens/" + std::string(relative);
}

}  // namespace sirocco
