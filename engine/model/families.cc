#include "engine/model/families.h"

#include <algorithm>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sirocco {
namespace {

const Family* FindFamily(std::string_view Family::*field, std::string_view value) {
  for (const Family& family : Families()) {
    if (!value.empty() && family.*field == value) return &family;
  }
  return nullptr;
}

std::string ListFamilies(std::string_view Family::*field) {
  std::vector<std::string> values;
  for (const Family& family : Families()) {
    const std::string value(family.*field);
    // Two families may share a name.
    if (!value.empty() && std::find(values.begin(), values.end(), value) == values.end()) {
      values.push_back(value);
    }
  }
  return absl::StrJoin(values, ", ");
}

}  // namespace

const Family* FindFamilyByModelType(std::string_view model_type) {
  return FindFamily(&Family::model_type, model_type);
}

const Family* FindFamilyByArchitecture(std::string_view architecture) {
  return FindFamily(&Family::architecture, architecture);
}

const Family* FindFamilyByGgufArchitecture(std::string_view architecture, bool experts) {
  const Family* found = FindFamily(&Family::gguf_architecture, architecture);
  for (const Family& family : Families()) {
    if (found == nullptr || family.gguf_architecture != architecture) continue;
    if ((family.experts.experts > 0) == experts) return &family;
  }
  return found;
}

std::string SupportedModelTypes() { return ListFamilies(&Family::model_type); }

std::string SupportedGgufArchitectures() { return ListFamilies(&Family::gguf_architecture); }

std::optional<Activation> FindActivation(std::string_view name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  return std::nullopt;
}

std::string HuggingFaceName(const Family& family, std::string_view gguf_name) {
  for (const TensorNames& names : family.tensors) {
    if (names.gguf == gguf_name) return std::string(names.hugging_face);
  }
  constexpr std::string_view kPrefix = "blk.";
  if (gguf_name.substr(0, kPrefix.size()) != kPrefix) return "";
  gguf_name.remove_prefix(kPrefix.size());
  const size_t dot = gguf_name.find('.');
  if (dot == std::string_view::npos) return "";
  const std::string number(gguf_name.substr(0, dot));
  int32_t layer;
  // "007" and "+7" are other names than "7": two names must not become one.
  if (!absl::SimpleAtoi(number, &layer) || layer < 0 || absl::StrCat(layer) != number) return "";
  for (const auto& list : {family.layer_tensors, family.layer_norms}) {
    for (const TensorNames& names : list) {
      if (names.gguf != gguf_name.substr(dot + 1)) continue;
      return absl::StrCat("model.layers.", layer, ".", std::string(names.hugging_face));
    }
  }
  return "";
}

}  // namespace sirocco
