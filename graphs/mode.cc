#include "graphs/mode.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

absl::Status BadVariable(const char* name, const std::string& value, const char* allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is \"", value, "\"; allowed are ", allowed));
}

}  // namespace

std::string_view NameOf(Mode mode) {
  switch (mode) {
    case Mode::kEager:
      return "eager";
    case Mode::kDecoderGraph:
      return "decoder_graph";
    case Mode::kDecoder:
      return "decoder";
    case Mode::kLayerGraph:
      return "layer_graph";
    case Mode::kLayer:
      return "layer";
  }
  return "?";
}

absl::StatusOr<Mode> ModeFromVariables(const std::optional<std::string>& torch_compile,
                                       const std::optional<std::string>& compile_mode) {
  const std::string compile = torch_compile.value_or("0");
  const std::string mode = compile_mode.value_or("2");
  if (compile != "0" && compile != "1") {
    return BadVariable("EOLE_TORCH_COMPILE", compile, "0 and 1");
  }
  // Checked in eager mode too: a wrong value must not wait for the day that compiling is turned on.
  if (mode.size() != 1 || mode[0] < '0' || mode[0] > '3') {
    return BadVariable("EOLE_COMPILE_MODE", mode, "0, 1, 2 and 3");
  }
  return compile == "0" ? Mode::kEager : kAllModes[1 + (mode[0] - '0')];
}

}  // namespace sirocco
