#include "engine/model/json_file.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/mapped_file.h"

namespace sirocco {
namespace {

using nlohmann::json;

// What the heap takes for `bytes`, by glibc's malloc: a header, in steps of 16.
uint64_t HeapBytes(uint64_t bytes) { return std::max<uint64_t>(32, (bytes + 8 + 15) & ~15ull); }

// A string that does not fit into its own object lies beside it.
uint64_t TextBytes(const std::string& text) {
  return text.capacity() < sizeof(std::string) / 2 ? 0 : HeapBytes(text.size() + 1);
}

// What a value takes in a tree, beside what is placed into it later.
uint64_t ValueBytes(const json& value) {
  switch (value.type()) {
    case json::value_t::string:
      return HeapBytes(sizeof(std::string)) + TextBytes(value.get_ref<const std::string&>());
    case json::value_t::array:
      return HeapBytes(sizeof(json::array_t));
    case json::value_t::object:
      return HeapBytes(sizeof(json::object_t));
    default:
      return 0;
  }
}

// A node of a map: its links and colour, key and value.
constexpr uint64_t kNodeBytes = 4 * sizeof(void*) + sizeof(std::string) + sizeof(json);
// An array that grows takes up to twice what it holds.
constexpr uint64_t kElementBytes = 2 * sizeof(json);

// The parser's events, all of them into a tree.
class TreeBuilder final : public nlohmann::json_sax<json> {
 public:
  explicit TreeBuilder(uint64_t text_bytes) : tree_(text_bytes) {}

  JsonTree& tree() { return tree_; }

  bool null() override { return tree_.Place(nullptr) != nullptr; }
  bool boolean(bool value) override { return tree_.Place(value) != nullptr; }
  bool number_integer(int64_t value) override { return tree_.Place(value) != nullptr; }
  bool number_unsigned(uint64_t value) override { return tree_.Place(value) != nullptr; }
  bool number_float(double value, const std::string&) override {
    return tree_.Place(value) != nullptr;
  }
  bool string(std::string& value) override { return tree_.Place(std::move(value)) != nullptr; }
  bool binary(json::binary_t&) override { return tree_.Fail("holds binary data"); }
  bool key(std::string& key) override { return tree_.Key(std::move(key)); }
  bool start_object(size_t) override { return tree_.Open(json::object()); }
  bool start_array(size_t) override { return tree_.Open(json::array()); }
  bool end_object() override { return tree_.Close(); }
  bool end_array() override { return tree_.Close(); }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return tree_.Fail(absl::StrCat("is not valid JSON at byte ", position));
  }

 private:
  JsonTree tree_;
};

}  // namespace

bool JsonTree::Fail(std::string error) {
  if (error_.empty()) error_ = std::move(error);
  return false;
}

bool JsonTree::Key(std::string key) {
  key_ = std::move(key);
  if (!open_.back()->contains(key_)) return true;
  return Fail(absl::StrCat("has the key ", Shown(key_), " twice"));
}

// Pointers into the tree stay valid: a container does not grow while one inside it is open.
json* JsonTree::Place(json value) {
  uint64_t bytes = ValueBytes(value);
  if (!open_.empty()) {
    bytes += open_.back()->is_object() ? HeapBytes(kNodeBytes) + TextBytes(key_) : kElementBytes;
  }
  if (bytes > memory_left_) {
    Fail(absl::StrCat("holds so many values that they take ", kMaxJsonOverhead >> 20,
                      " MiB more than their text"));
    return nullptr;
  }
  memory_left_ -= bytes;
  if (open_.empty()) {
    root_ = std::move(value);
    return &root_;
  }
  json& parent = *open_.back();
  if (parent.is_object()) return &(parent[std::move(key_)] = std::move(value));
  parent.push_back(std::move(value));
  return &parent.back();
}

bool JsonTree::Open(json container) {
  if (open_.size() >= kMaxJsonDepth) {
    return Fail(absl::StrCat("nests deeper than ", kMaxJsonDepth, " levels"));
  }
  json* placed = Place(std::move(container));
  if (placed == nullptr) return false;
  open_.push_back(placed);
  return true;
}

bool JsonTree::Close() {
  open_.pop_back();
  return true;
}

absl::Status CheckJsonTokens(std::string_view text) {
  bool in_string = false;
  size_t begin = 0;  // of the token, or of white space
  for (size_t i = 0; i < text.size(); ++i) {
    if (i - begin > kMaxJsonToken) {
      return absl::InvalidArgumentError(absl::StrCat("has a value or white space of more than ",
                                                     kMaxJsonToken, " bytes at byte ", begin));
    }
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
        begin = i;
      }
    } else if (c == '"' || c == ',' || c == ':' || c == '{' || c == '}' || c == '[' || c == ']') {
      in_string = c == '"';
      begin = i;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<json> ParseJsonObject(std::string_view text, std::string_view path,
                                     uint64_t most_bytes) {
  if (text.size() > most_bytes) {
    return InvalidFile(
        path, absl::StrCat("has ", text.size(), " bytes of JSON; allowed are ", most_bytes));
  }
  if (absl::Status status = CheckJsonTokens(text); !status.ok()) {
    return InvalidFile(path, std::string(status.message()));
  }
  TreeBuilder builder(text.size());
  const bool parsed = json::sax_parse(text.data(), text.data() + text.size(), &builder);
  if (!parsed) return InvalidFile(path, builder.tree().error());
  if (!builder.tree().root().is_object()) return InvalidFile(path, "is no JSON object");
  return std::move(builder.tree().root());
}

absl::StatusOr<json> ReadJsonObject(const std::string& path, uint64_t most_bytes) {
  const absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  return ParseJsonObject((*file)->text(), path, most_bytes);
}

const json* FindValue(const json& object, std::string_view key) {
  const auto at = object.find(std::string(key));
  return at == object.end() || at->is_null() ? nullptr : &*at;
}

std::optional<int64_t> JsonInt(const json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  return std::nullopt;
}

}  // namespace sirocco
