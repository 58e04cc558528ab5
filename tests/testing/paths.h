// Where a test finds its fixtures.
#pragma once

#include <string>
#include <string_view>

namespace sirocco {

// The path of a file or folder of tests/goldens ("llama_tied/model.safetensors"), which the test
// must name in `data`. Under Bazel, in a bundle with tests (deploy/bundle), where SIROCCO_TEST_ROOT
// names a checkout's root, and when the program is started in one.
std::string GoldenPath(std::string_view relative);

// The same of a file or folder of tests ("bench/models/llama3.1-8b").
std::string TestPath(std::string_view relative);

}  // namespace sirocco
