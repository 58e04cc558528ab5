// The bytes that a tensor stands for, as it is stored.
#pragma once

#include <span>
#include <string>

#include "engine/model/tensor_source.h"
#include "gtest/gtest.h"

namespace sirocco {

inline std::string BytesOfTensor(const StoredTensor& tensor) {
  std::string bytes(tensor.bytes, '\0');
  const absl::Status status =
      tensor.reader->Read(tensor.offset, std::as_writable_bytes(std::span<char>(bytes)));
  EXPECT_TRUE(status.ok()) << status;
  return bytes;
}

}  // namespace sirocco
