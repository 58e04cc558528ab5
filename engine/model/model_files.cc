#include "engine/model/model_files.h"

#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "engine/model/gguf_model.h"
#include "engine/model/hugging_face.h"
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

absl::StatusOr<bool> IsDirectory(const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError("no model is named: pass a GGUF file or a directory");
  }
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return FileStatus(errno, path);
  return S_ISDIR(info.st_mode);
}

}  // namespace

absl::StatusOr<ModelDescriptor> OpenDescriptor(const std::string& path) {
  const absl::StatusOr<bool> directory = IsDirectory(path);
  if (!directory.ok()) return directory.status();
  if (*directory) return OpenHuggingFaceDescriptor(path);
  absl::StatusOr<ModelFiles> files = OpenGgufModel(path);
  if (!files.ok()) return files.status();
  return std::move(files->descriptor);
}

absl::StatusOr<ModelFiles> OpenModel(const std::string& path) {
  const absl::StatusOr<bool> directory = IsDirectory(path);
  if (!directory.ok()) return directory.status();
  absl::StatusOr<ModelFiles> files = *directory ? OpenHuggingFace(path) : OpenGgufModel(path);
  if (!files.ok()) return files.status();
  files->name = OwnName(path);
  files->format = *directory ? "safetensors" : "gguf";
  return files;
}

}  // namespace sirocco
