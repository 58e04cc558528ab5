#include "engine/model/fused_tensors.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/file_error.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

using Shape = std::vector<int64_t>;

// By name, of all tensors that the model has.
std::unordered_map<std::string, Shape> ShapesOf(const ModelDescriptor& descriptor) {
  ModelWeights scratch;
  std::unordered_map<std::string, Shape> shapes;
  for (WeightPlace& place : WeightPlaces(descriptor, scratch)) {
    shapes.emplace(std::move(place.tensor), std::move(place.shape));
  }
  return shapes;
}

// The parts, which all have the columns of the first, one below the other.
absl::Status Split(const StoredTensor& whole, std::string_view prefix, const FusedTensor& fused,
                   const std::unordered_map<std::string, Shape>& shapes,
                   std::vector<StoredTensor>& out) {
  std::vector<std::pair<std::string, Shape>> parts;
  Shape wanted;
  for (const std::string_view part : fused.parts) {
    const auto found = shapes.find(absl::StrCat(std::string(prefix), std::string(part)));
    // Of a layer that the model does not have: left as it is, to be refused by its own name.
    if (found == shapes.end()) {
      out.push_back(whole);
      return absl::OkStatus();
    }
    parts.push_back(*found);
    if (wanted.empty()) {
      wanted = found->second;
    } else {
      wanted.front() += found->second.front();
    }
  }
  if (whole.shape != wanted) {
    return InvalidFile(
        whole.file,
        absl::StrCat("the tensor ", Shown(whole.name), " is ", DescribeTensor(whole),
                     "; by the model's settings it is [", absl::StrJoin(wanted, ", "), "]"));
  }
  uint64_t done = 0;
  for (auto& [name, shape] : parts) {
    const std::optional<uint64_t> bytes = StoredBytes(whole.type, shape);
    if (!bytes || *bytes > whole.bytes - done) {
      return InvalidFile(whole.file,
                         absl::StrCat("the tensor ", Shown(whole.name), ", ", DescribeTensor(whole),
                                      ", has no rows of whole blocks"));
    }
    StoredTensor part = whole;
    part.name = std::move(name);
    part.shape = std::move(shape);
    part.offset = whole.offset + done;
    part.bytes = *bytes;
    done += *bytes;
    out.push_back(std::move(part));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<StoredTensor>> SplitFused(const ModelDescriptor& descriptor,
                                                     std::span<const FusedTensor> fused,
                                                     std::vector<StoredTensor> tensors) {
  const std::unordered_map<std::string, Shape> shapes = ShapesOf(descriptor);
  std::vector<StoredTensor> out;
  for (StoredTensor& tensor : tensors) {
    const FusedTensor* found = nullptr;
    for (const FusedTensor& candidate : fused) {
      if (absl::EndsWith(tensor.name, std::string(candidate.whole))) found = &candidate;
    }
    if (found == nullptr) {
      out.push_back(std::move(tensor));
      continue;
    }
    const std::string_view prefix =
        std::string_view(tensor.name).substr(0, tensor.name.size() - found->whole.size());
    if (absl::Status s = Split(tensor, prefix, *found, shapes, out); !s.ok()) return s;
  }
  std::unordered_set<std::string_view> names;
  for (const StoredTensor& tensor : out) {
    if (names.insert(tensor.name).second) continue;
    return InvalidFile(tensor.file, absl::StrCat("has the tensor ", Shown(tensor.name),
                                                 " twice, once as a part of another"));
  }
  return out;
}

absl::StatusOr<std::vector<StoredTensor>> SplitExperts(int32_t experts,
                                                       std::vector<StoredTensor> tensors) {
  if (experts == 0) return tensors;
  constexpr std::string_view kAll = "mlp.experts.";
  std::vector<StoredTensor> out;
  for (StoredTensor& tensor : tensors) {
    const size_t at = tensor.name.find(kAll);
    if (at == std::string::npos) {
      out.push_back(std::move(tensor));
      continue;
    }
    if (tensor.shape.size() != 3 || tensor.shape.front() != experts) {
      return InvalidFile(tensor.file, absl::StrCat("the tensor ", Shown(tensor.name), " is ",
                                                   DescribeTensor(tensor), "; it must be of ",
                                                   experts, " matrices, one of each expert"));
    }
    const std::string prefix = tensor.name.substr(0, at + kAll.size());
    const std::string name = tensor.name.substr(at + kAll.size());
    for (int32_t i = 0; i < experts; ++i) {
      StoredTensor part = tensor;
      part.name = absl::StrCat(prefix, i, ".", name);
      part.shape.erase(part.shape.begin());
      part.bytes = tensor.bytes / static_cast<uint64_t>(experts);  // rows are whole blocks
      part.offset = tensor.offset + part.bytes * static_cast<uint64_t>(i);
      out.push_back(std::move(part));
    }
  }
  return out;
}

}  // namespace sirocco
