#include "engine/model/model_files.h"

#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "engine/model/gguf_model.h"
#include "engine/model/hugging_face.h"
#include "engine/model/json_file.h"
#include "engine/model/mapped_file.h"

namespace sirocco {
namespace {

// The path's last part, also of "dir/" and ".".
std::string OwnName(const std::string& path) {
  std::error_code error;
  std::filesystem::path full = std::filesystem::absolute(path, error).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  std::string name = full.filename().string();
  constexpr std::string_view kExtension = ".gguf";
  if (name.size() > kExtension.size() &&
      std::string_view(name).substr(name.size() - kExtension.size()) == kExtension) {
    name.resize(name.size() - kExtension.size());
  }
  return name;
}

}  // namespace

absl::StatusOr<ModelDescriptor> OpenDescriptor(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    absl::StatusOr<ModelFiles> files = OpenModel(path);
    if (!files.ok()) return files.status();
    return std::move(files->descriptor);
  }
  const std::string config_path = path + "/config.json";
  const absl::StatusOr<nlohmann::json> config =
      ReadJsonObject(config_path, {.bytes = 1 << 20, .values = 1 << 16});
  if (!config.ok()) return config.status();
  return DescriptorFromConfig(*config, config_path);
}

absl::StatusOr<ModelFiles> OpenModel(const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError("no model is named: pass a GGUF file or a directory");
  }
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return FileStatus(errno, path);
  const bool directory = S_ISDIR(info.st_mode);
  absl::StatusOr<ModelFiles> files = directory ? OpenHuggingFace(path) : OpenGgufModel(path);
  if (!files.ok()) return files.status();
  files->name = OwnName(path);
  files->format = directory ? "safetensors" : "gguf";
  return files;
}

}  // namespace sirocco
