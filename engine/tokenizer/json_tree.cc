#include "engine/tokenizer/json_tree.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/pipeline.h"

namespace sirocco {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = 8'000'000;  // in the tree
constexpr size_t kMaxMerges = 8'000'000;

class TreeBuilder final : public nlohmann::json_sax<json> {
 public:
  // `tables`: model.vocab and model.merges are read apart.
  explicit TreeBuilder(bool tables) : tables_(tables) {}

  absl::Status status() const { return status_; }
  TokenizerTree& tree() { return tree_; }

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_float(double value, const std::string&) override { return Value(value); }
  bool binary(json::binary_t&) override { return Fail("binary data"); }
  bool number_integer(int64_t value) override {
    return mode_ == Mode::kVocabulary ? Id(value) : Value(value);
  }
  bool number_unsigned(uint64_t value) override {
    if (mode_ != Mode::kVocabulary) return Value(value);
    return Id(value < kMaxVocabularySize ? static_cast<int64_t>(value) : kMaxVocabularySize);
  }
  bool string(std::string& value) override {
    if (mode_ == Mode::kMerges) return MergeLine(value);
    if (mode_ == Mode::kPair) return MergePart(value);
    return Value(std::move(value));
  }

  bool key(std::string& value) override {
    key_ = std::move(value);
    if (mode_ == Mode::kTree && open_.back()->contains(key_)) {
      return Fail(absl::StrCat("key ", Shown(key_), " is there twice"));
    }
    return true;
  }
  bool start_object(size_t) override {
    if (mode_ == Mode::kTree && AtTable("vocab")) {
      mode_ = Mode::kVocabulary;
      tree_.has_vocabulary = true;
      return true;
    }
    return Open(json::object());
  }
  bool end_object() override {
    if (mode_ == Mode::kVocabulary) {
      mode_ = Mode::kTree;
      return true;
    }
    open_.pop_back();
    return true;
  }
  bool start_array(size_t) override {
    if (mode_ == Mode::kTree && AtTable("merges")) {
      mode_ = Mode::kMerges;
      tree_.has_merges = true;
      return true;
    }
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kPair;
      pair_.clear();
      return true;
    }
    return Open(json::array());
  }
  bool end_array() override {
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kTree;
      return true;
    }
    if (mode_ == Mode::kPair) {
      mode_ = Mode::kMerges;
      if (pair_.size() != 2) return Fail("a merge without exactly two parts");
      return AddMerge({std::move(pair_[0]), std::move(pair_[1])});
    }
    open_.pop_back();
    return true;
  }
  bool parse_error(size_t, const std::string&, const json::exception& error) override {
    std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at ..."
    const size_t prefix = what.find("] ");
    if (prefix != std::string_view::npos) what.remove_prefix(prefix + 2);
    return Fail(std::string(what));
  }

 private:
  enum class Mode { kTree, kVocabulary, kMerges, kPair };

  bool Fail(const std::string& message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
    return false;
  }

  // Whether the value that begins here is root.model.`name`.
  bool AtTable(std::string_view name) const {
    if (!tables_ || open_.size() != 2 || key_ != name) return false;
    const auto model = tree_.root.find("model");
    return model != tree_.root.end() && &*model == open_[1];
  }

  bool Value(json value) { return Place(std::move(value)) != nullptr; }

  bool Open(json value) {
    if (open_.size() >= kMaxDepth) return Fail(absl::StrCat("nested deeper than ", kMaxDepth));
    json* placed = Place(std::move(value));
    if (placed == nullptr) return false;
    open_.push_back(placed);
    return true;
  }

  // Addresses in a tree stay: only the innermost open array grows.
  json* Place(json value) {
    if (mode_ != Mode::kTree) {
      Fail(mode_ == Mode::kVocabulary ? absl::StrCat("the id of ", Shown(key_), " is no integer")
                                      : std::string("a merge that is neither text nor a pair"));
      return nullptr;
    }
    if (++values_ > kMaxValues) {
      Fail(absl::StrCat("more than ", kMaxValues, " values"));
      return nullptr;
    }
    if (open_.empty()) {
      tree_.root = std::move(value);
      return &tree_.root;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  bool Id(int64_t id) {
    if (id < 0 || id >= kMaxVocabularySize) {
      return Fail(absl::StrCat("the id of ", Shown(key_), " is out of range: 0 to ",
                               kMaxVocabularySize - 1));
    }
    const std::string entry = key_;
    if (!tree_.vocabulary.ids.emplace(std::move(key_), static_cast<int32_t>(id)).second) {
      return Fail(absl::StrCat("vocabulary entry ", Shown(entry), " is there twice"));
    }
    return true;
  }

  bool MergeLine(const std::string& line) {
    if (absl::StartsWith(line, "#version")) return true;
    auto merge = ParseMerge(line);
    if (!merge) return Fail(absl::StrCat("merge ", Shown(line), " does not have two parts"));
    return AddMerge(std::move(*merge));
  }

  bool MergePart(std::string& part) {
    if (pair_.size() == 2) return Fail("a merge of more than two parts");
    pair_.push_back(std::move(part));
    return true;
  }

  bool AddMerge(std::pair<std::string, std::string> merge) {
    if (tree_.vocabulary.merges.size() >= kMaxMerges) {
      return Fail(absl::StrCat("more than ", kMaxMerges, " merges"));
    }
    tree_.vocabulary.merges.push_back(std::move(merge));
    return true;
  }

  const bool tables_;
  Mode mode_ = Mode::kTree;
  std::vector<json*> open_;  // containers, outermost first
  std::string key_;
  std::vector<std::string> pair_;
  size_t values_ = 0;
  TokenizerTree tree_;
  absl::Status status_;
};

absl::StatusOr<TokenizerTree> Read(std::string_view text, bool tables) {
  TreeBuilder builder(tables);
  const bool parsed = json::sax_parse(text.begin(), text.end(), &builder);
  if (!builder.status().ok()) return builder.status();
  if (!parsed || !builder.tree().root.is_object()) {
    return absl::InvalidArgumentError("not a JSON object");
  }
  return std::move(builder.tree());
}

}  // namespace

std::optional<std::pair<std::string, std::string>> ParseMerge(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  return std::make_pair(std::string(line.substr(0, space)), std::string(line.substr(space + 1)));
}

absl::StatusOr<TokenizerTree> ReadTokenizerTree(std::string_view text) {
  return Read(text, /*tables=*/true);
}

absl::StatusOr<json> ReadJsonObject(std::string_view text) {
  absl::StatusOr<TokenizerTree> tree = Read(text, /*tables=*/false);
  if (!tree.ok()) return tree.status();
  return std::move(tree->root);
}

}  // namespace sirocco
