// Opens GGUF files that a test has made.
#pragma once

#include "absl/status/statusor.h"
#include "engine/model/model_files.h"
#include "gtest/gtest.h"
#include "tests/engine/model/gguf_writer.h"
#include "tests/engine/model/test_files.h"

namespace sirocco {

class GgufModelTest : public ::testing::Test {
 protected:
  absl::StatusOr<ModelFiles> Open(const GgufWriter& writer) {
    return OpenModel(folder_.Write("Tiny-Model.gguf", writer.Bytes()));
  }
  TestFolder folder_;
};

}  // namespace sirocco
