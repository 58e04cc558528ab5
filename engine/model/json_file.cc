#include "engine/model/json_file.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/mapped_file.h"

namespace sirocco {
namespace {

using nlohmann::json;

// Builds the tree, and stops at the first thing that it may not hold.
class TreeBuilder final : public nlohmann::json_sax<json> {
 public:
  explicit TreeBuilder(uint64_t max_values) : max_values_(max_values) {}

  const std::string& error() const { return error_; }
  json& root() { return root_; }

  bool null() override { return Place(nullptr) != nullptr; }
  bool boolean(bool value) override { return Place(value) != nullptr; }
  bool number_integer(int64_t value) override { return Place(value) != nullptr; }
  bool number_unsigned(uint64_t value) override { return Place(value) != nullptr; }
  bool number_float(double value, const std::string&) override { return Place(value) != nullptr; }
  bool string(std::string& value) override { return Place(std::move(value)) != nullptr; }
  bool binary(json::binary_t&) override { return Fail("binary data"); }

  bool key(std::string& key) override {
    key_ = std::move(key);
    if (open_.back()->contains(key_))
      return Fail(absl::StrCat("has the key ", Shown(key_), " twice"));
    return true;
  }
  bool start_object(size_t) override { return Open(json::object()); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return Fail(absl::StrCat("is not valid JSON at byte ", position));
  }

 private:
  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  // Pointers into the tree stay valid: a container does not grow while one inside it is open.
  json* Place(json value) {
    if (++values_ > max_values_) {
      Fail(absl::StrCat("holds more than ", max_values_, " values"));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back();
    if (parent.is_object()) return &(parent[std::move(key_)] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool Open(json container) {
    if (open_.size() >= kMaxJsonDepth) {
      return Fail(absl::StrCat("nests deeper than ", kMaxJsonDepth, " levels"));
    }
    json* placed = Place(std::move(container));
    if (placed == nullptr) return false;
    open_.push_back(placed);
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  const uint64_t max_values_;
  uint64_t values_ = 0;
  json root_;
  std::vector<json*> open_;
  std::string key_;
  std::string error_;
};

}  // namespace

absl::StatusOr<json> ParseJsonObject(std::string_view text, std::string_view path,
                                     const JsonLimits& limits) {
  if (text.size() > limits.bytes) {
    return InvalidFile(
        path, absl::StrCat("has ", text.size(), " bytes of JSON; allowed are ", limits.bytes));
  }
  TreeBuilder builder(limits.values);
  const bool parsed = json::sax_parse(text.data(), text.data() + text.size(), &builder);
  if (!parsed) return InvalidFile(path, builder.error());
  if (!builder.root().is_object()) return InvalidFile(path, "is no JSON object");
  return std::move(builder.root());
}

absl::StatusOr<json> ReadJsonObject(const std::string& path, const JsonLimits& limits) {
  const absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const std::span<const std::byte> bytes = (*file)->bytes();
  return ParseJsonObject({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path, limits);
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
