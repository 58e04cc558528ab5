#include "tests/testing/golden.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace sirocco {
namespace {

template <typename Stored, typename T>
void Append(const char* begin, size_t bytes, std::vector<T>* out) {
  for (size_t i = 0; i + sizeof(Stored) <= bytes; i += sizeof(Stored)) {
    Stored value;
    std::memcpy(&value, begin + i, sizeof(value));
    out->push_back(static_cast<T>(value));
  }
}

void AppendBFloat16(const char* begin, size_t bytes, std::vector<float>* out) {
  for (size_t i = 0; i + 2 <= bytes; i += 2) {
    float value = 0;
    std::memcpy(reinterpret_cast<char*>(&value) + 2, begin + i, 2);  // the upper half
    out->push_back(value);
  }
}

std::vector<int32_t> Ids(const GoldenTensor& tensor) {
  return {tensor.ints.begin(), tensor.ints.end()};
}

}  // namespace

absl::StatusOr<std::map<std::string, GoldenTensor>> ReadGoldenTensors(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(stream)),
                         std::istreambuf_iterator<char>());
  if (file.size() < 8) return absl::NotFoundError(absl::StrCat(path, ": no golden"));
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  if (header_bytes > file.size() - 8) return absl::InvalidArgumentError(path);
  const auto header = nlohmann::json::parse(file.substr(8, header_bytes), nullptr, false);
  if (!header.is_object()) return absl::InvalidArgumentError(path);
  const std::string data = file.substr(8 + header_bytes);

  std::map<std::string, GoldenTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    GoldenTensor tensor;
    tensor.shape = entry.value("shape", std::vector<int64_t>());
    const auto offsets = entry.value("data_offsets", std::vector<size_t>());
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", name));
    }
    const char* begin = data.data() + offsets[0];
    const size_t bytes = offsets[1] - offsets[0];
    const std::string type = entry.value("dtype", "");
    if (type == "F32") {
      Append<float>(begin, bytes, &tensor.floats);
    } else if (type == "BF16") {
      AppendBFloat16(begin, bytes, &tensor.floats);
    } else if (type == "I64") {
      Append<int64_t>(begin, bytes, &tensor.ints);
    } else if (type == "I32") {
      Append<int32_t>(begin, bytes, &tensor.ints);
    } else {
      return absl::UnimplementedError(absl::StrCat(path, ": ", name, " has the type ", type));
    }
    tensors.emplace(name, std::move(tensor));
  }
  return tensors;
}

absl::StatusOr<Golden> ReadGolden(const std::string& path) {
  absl::StatusOr<std::map<std::string, GoldenTensor>> tensors = ReadGoldenTensors(path);
  if (!tensors.ok()) return tensors.status();
  Golden golden;
  for (int i = 0; tensors->count(absl::StrCat("prompt_", i)) > 0; ++i) {
    const GoldenTensor& logits = (*tensors)[absl::StrCat("logits_", i)];
    if (logits.shape.size() != 2) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": logits_", i));
    }
    golden.vocab_size = static_cast<int32_t>(logits.shape[1]);
    golden.prompts.push_back(Ids((*tensors)[absl::StrCat("prompt_", i)]));
    golden.logits.push_back(logits.floats);
    golden.greedy.push_back(Ids((*tensors)[absl::StrCat("greedy_", i)]));
    golden.margins.push_back((*tensors)[absl::StrCat("margin_", i)].floats);
  }
  if (golden.prompts.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds no prompt_0"));
  }
  return golden;
}

}  // namespace sirocco
