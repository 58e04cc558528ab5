// A safetensors file.
#include "engine/model/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sirocco;
  const FuzzFile input(data, size);
  const auto source = OpenSafetensors(input.path());
  if (!source.ok()) {
    RequireOneLine(source.status());
    return 0;
  }
  for (const StoredTensor& tensor : (*source)->tensors()) {
    Require(tensor.offset <= size && tensor.bytes <= size - tensor.offset,
            "tensors lie in the file");
    Require((*source)->Find(tensor.name) == &tensor, "a tensor is found by its name");
  }
  return 0;
}
