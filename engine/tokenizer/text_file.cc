#include "engine/tokenizer/text_file.h"

#include <memory>
#include <span>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/mapped_file.h"

namespace sirocco {

absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t most) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const std::span<const std::byte> bytes = (*file)->bytes();
  if (bytes.size() > most) {
    return InvalidFile(path, absl::StrCat("has ", bytes.size(), " bytes; allowed: ", most));
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace sirocco
