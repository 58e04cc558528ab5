#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/gguf.h"
#include "engine/model/mapped_file.h"
#include "engine/tokenizer/gguf_tokenizer.h"
#include "engine/tokenizer/json_fields.h"
#include "engine/tokenizer/pipeline.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_config.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace sirocco {
namespace {

namespace fs = std::filesystem;

// The largest in use have 40 MB.
constexpr size_t kMaxTokenizerJson = 256u << 20;

// The file is closed again before a tokenizer is made of the parts.
absl::StatusOr<TokenizerParts> ReadJson(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const std::string_view text = (*file)->text();
  if (text.size() > kMaxTokenizerJson) {
    return InvalidFile(path,
                       absl::StrCat("has ", text.size(), " bytes; allowed: ", kMaxTokenizerJson));
  }
  absl::StatusOr<TokenizerParts> parts = ParseTokenizerJson(text);
  if (!parts.ok()) return At(path, parts.status());
  return parts;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenJson(const std::string& path) {
  absl::StatusOr<TokenizerParts> parts = ReadJson(path);
  if (!parts.ok()) return parts.status();
  const std::string folder = fs::path(path).parent_path().string();
  absl::Status status = ReadTokenizerConfig(folder.empty() ? "." : folder, &*parts);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeTokenizer(*std::move(parts));
  if (!tokenizer.ok()) return At(path, tokenizer.status());
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenDirectory(const std::string& path) {
  const std::string json = (fs::path(path) / "tokenizer.json").string();
  if (IsPresent(json)) return OpenJson(json);
  for (const char* other : {"tokenizer.model", "vocab.json", "tiktoken.model", "tekken.json"}) {
    if (!IsPresent((fs::path(path) / other).string())) continue;
    return UnsupportedFile(path, absl::StrCat("a tokenizer in ", other,
                                              " is not supported; supported: tokenizer.json"));
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenGguf(const std::string& path) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  if (!HasGgufTokenizer(**file)) return nullptr;
  absl::StatusOr<TokenizerParts> parts = ParseGgufTokenizer(**file);
  if (!parts.ok()) return parts.status();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeTokenizer(*std::move(parts));
  if (!tokenizer.ok()) return At(path, tokenizer.status());
  return tokenizer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return OpenDirectory(path);
  return absl::EndsWith(path, ".json") ? OpenJson(path) : OpenGguf(path);
}

}  // namespace sirocco
