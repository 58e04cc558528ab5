// Where a test finds its fixtures.
#pragma once

#include <string>
#include <string_view>

namespace sirocco {

// The path of a file or folder of tests/goldens ("llama_tied/model.safetensors"), which the test
// must name in `data`. Under Bazel and when the program is started from the workspace root.
std::string GoldenPath(std::string_view relative);

}  // namespace sirocco
