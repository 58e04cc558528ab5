#include "tests/testing/paths.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace sirocco {
namespace {

// Where the folder tests lies, with a slash at the end unless it is the current directory.
std::string Root() {
  if (const char* root = std::getenv("SIROCCO_TEST_ROOT"); root != nullptr) {
    return std::string(root) + "/";
  }
  const char* runfiles = std::getenv("TEST_SRCDIR");
  const char* workspace = std::getenv("TEST_WORKSPACE");
  if (runfiles != nullptr && workspace != nullptr) {
    return std::string(runfiles) + "/" + workspace + "/";
  }
  // A bundle has its test programs and their files in one folder `tests`.
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path bundle = program.parent_path().parent_path();
  if (!error && std::filesystem::is_directory(bundle / "tests/goldens", error)) {
    return bundle.string() + "/";
  }
  return "";
}

}  // namespace

std::string TestPath(std::string_view relative) {
  static const auto* root = new std::string(Root());
  return *root + "tests/" + std::string(relative);
}

std::string GoldenPath(std::string_view relative) {
  return TestPath("goldens/" + std::string(relative));
}

}  // namespace sirocco
