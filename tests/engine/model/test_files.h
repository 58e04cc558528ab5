// Files that a test makes, in a folder of its own.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace sirocco {

// Removed with the object.
class TestFolder {
 public:
  TestFolder() {
    std::string pattern = ::testing::TempDir() + "/sirocco.XXXXXX";
    const char* made = mkdtemp(pattern.data());
    EXPECT_NE(made, nullptr);
    path_ = pattern;
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  std::string File(std::string_view name) const { return path_ + "/" + std::string(name); }
  std::string Write(std::string_view name, std::string_view bytes) const {
    std::ofstream(File(name), std::ios::binary) << bytes;
    return File(name);
  }

 private:
  std::string path_;
};

inline std::string ReadBytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// That a status is this code, names `part`, and is one line.
#define EXPECT_ERROR(status_or, wanted, part)                           \
  do {                                                                  \
    const auto& result = (status_or);                                   \
    ASSERT_FALSE(result.ok());                                          \
    EXPECT_EQ(result.status().code(), wanted) << result.status();       \
    EXPECT_NE(result.status().message().find(part), std::string::npos)  \
        << "no '" << (part) << "' in: " << result.status();             \
    EXPECT_EQ(result.status().message().find('\n'), std::string::npos); \
  } while (false)

}  // namespace sirocco
