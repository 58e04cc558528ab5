// A GGUF file: its metadata and tensors, the model and the tokenizer that it describes.
#include <vector>

#include "engine/model/gguf.h"
#include "engine/model/gguf_model.h"
#include "engine/model/tensor_rows.h"
#include "engine/tokenizer/gguf_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

// Every tensor that a model was found to have can be read, its blocks too.
static void ReadAll(const sirocco::TensorSource& tensors) {
  for (const sirocco::StoredTensor& tensor : tensors.tensors()) {
    std::vector<float> values(static_cast<size_t>(sirocco::RowElements(tensor)));
    if (tensor.shape.size() == 1) values.resize(static_cast<size_t>(tensor.shape.front()));
    sirocco::Require(sirocco::ReadRows(tensor, 0, values).ok(), "a tensor's first row can be read");
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sirocco;
  const FuzzFile input(data, size);
  const auto file = GgufFile::Open(input.path());
  if (!file.ok()) {
    RequireOneLine(file.status());
    return 0;
  }
  for (const std::string_view key : (*file)->keys()) {
    (*file)->GetInt(key);
    (*file)->GetFloat(key);
    (*file)->GetBool(key);
    (*file)->GetString(key);
    (*file)->GetStrings(key);
    (*file)->GetInts(key);
    (*file)->GetFloats(key);
  }
  for (const StoredTensor& tensor : (*file)->tensors()) {
    Require(tensor.offset <= size && tensor.bytes <= size - tensor.offset,
            "tensors lie in the file");
  }
  const auto model = OpenGgufModel(input.path());
  if (!model.ok()) RequireOneLine(model.status());
  if (model.ok()) ReadAll(*model->tensors);
  if (!HasGgufTokenizer(**file)) return 0;
  auto parts = ParseGgufTokenizer(**file);
  if (!parts.ok()) {
    RequireOneLine(parts.status());
    return 0;
  }
  const auto tokenizer = MakeTokenizer(*std::move(parts));
  if (!tokenizer.ok()) {
    RequireOneLine(tokenizer.status());
    return 0;
  }
  const auto ids = (*tokenizer)->Encode("Hello, w\u00f6rld 123", {.parse_special_tokens = true});
  if (ids.ok()) (*tokenizer)->Decode(*ids, /*skip_special_tokens=*/false);
  return 0;
}
