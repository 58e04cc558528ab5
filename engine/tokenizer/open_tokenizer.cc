#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

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
#include "engine/tokenizer/tokenizer_model.h"

namespace sirocco {
namespace {

namespace fs = std::filesystem;

// The largest in use have 40 MB.
constexpr size_t kMaxTokenizerBytes = 256u << 20;

using Parse = absl::StatusOr<TokenizerParts> (*)(std::string_view);

// The file is closed again before a tokenizer is made of the parts.
absl::StatusOr<TokenizerParts> ReadParts(const std::string& path, Parse parse) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const std::string_view text = (*file)->text();
  if (text.size() > kMaxTokenizerBytes) {
    return InvalidFile(path,
                       absl::StrCat("has ", text.size(), " bytes; allowed: ", kMaxTokenizerBytes));
  }
  absl::StatusOr<TokenizerParts> parts = parse(text);
  if (!parts.ok()) return At(path, parts.status());
  return parts;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const std::string& path, TokenizerParts parts) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeTokenizer(std::move(parts));
  if (!tokenizer.ok()) return At(path, tokenizer.status());
  return tokenizer;
}

std::string FolderOf(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenJson(const std::string& path) {
  absl::StatusOr<TokenizerParts> parts = ReadParts(path, ParseTokenizerJson);
  if (!parts.ok()) return parts.status();
  absl::Status status = ReadTokenizerConfig(FolderOf(path), &*parts);
  if (!status.ok()) return status;
  return Make(path, *std::move(parts));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenModel(const std::string& path) {
  absl::StatusOr<TokenizerParts> parts = ReadParts(path, ParseTokenizerModel);
  if (!parts.ok()) return parts.status();
  absl::Status status = ReadTokenizerConfig(FolderOf(path), &*parts);
  if (status.ok()) status = ReadTokenizerModelConfig(FolderOf(path), &*parts);
  if (!status.ok()) return status;
  return Make(path, *std::move(parts));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenDirectory(const std::string& path) {
  const std::string json = (fs::path(path) / "tokenizer.json").string();
  if (IsPresent(json)) return OpenJson(json);
  const std::string model = (fs::path(path) / "tokenizer.model").string();
  if (IsPresent(model)) return OpenModel(model);
  for (const char* other : {"vocab.json", "tiktoken.model", "tekken.json"}) {
    if (!IsPresent((fs::path(path) / other).string())) continue;
    return UnsupportedFile(path, absl::StrCat("a tokenizer in ", other,
                                              " is not supported; supported: tokenizer.json, "
                                              "tokenizer.model"));
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenGguf(const std::string& path) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  if (!HasGgufTokenizer(**file)) return nullptr;
  absl::StatusOr<TokenizerParts> parts = ParseGgufTokenizer(**file);
  if (!parts.ok()) return parts.status();
  file->reset();  // its lists are in memory no more while tables are made of them
  return Make(path, *std::move(parts));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return OpenDirectory(path);
  if (absl::EndsWith(path, ".json")) return OpenJson(path);
  return absl::EndsWith(path, ".model") ? OpenModel(path) : OpenGguf(path);
}

}  // namespace sirocco
