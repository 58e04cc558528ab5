#include "engine/tokenizer/json_tree.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/json_file.h"

namespace sirocco {
namespace {

using nlohmann::json;

class TreeBuilder final : public nlohmann::json_sax<json> {
 public:
  explicit TreeBuilder(size_t text_bytes) : tree_(text_bytes) {
    tables_.vocabulary.ids.Reserve(text_bytes);
    tables_.vocabulary.merges.Reserve(text_bytes);
  }

  const std::string& error() const { return tree_.error(); }
  TokenizerTree Take() {
    tables_.root = std::move(tree_.root());
    return std::move(tables_);
  }

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_float(double value, const std::string&) override {
    return mode_ == Mode::kPiece ? Score(value) : Value(value);
  }
  bool binary(json::binary_t&) override { return tree_.Fail("binary data"); }
  bool number_integer(int64_t value) override {
    if (mode_ == Mode::kPiece) return Score(static_cast<double>(value));
    return mode_ == Mode::kVocabulary ? Id(value) : Value(value);
  }
  bool number_unsigned(uint64_t value) override {
    if (mode_ == Mode::kPiece) return Score(static_cast<double>(value));
    if (mode_ != Mode::kVocabulary) return Value(value);
    return Id(value < kMaxVocabularySize ? static_cast<int64_t>(value) : kMaxVocabularySize);
  }
  bool string(std::string& value) override {
    if (mode_ == Mode::kMerges) return MergeLine(value);
    if (mode_ == Mode::kPair) return MergePart(value);
    if (mode_ == Mode::kPiece) return PieceText(value);
    return Value(std::move(value));
  }

  bool key(std::string& value) override {
    if (mode_ == Mode::kTree) return tree_.Key(std::move(value));
    entry_ = std::move(value);
    return true;
  }
  bool start_object(size_t) override {
    if (mode_ == Mode::kTree && AtTable("vocab")) {
      mode_ = Mode::kVocabulary;
      tables_.has_vocabulary = true;
      return true;
    }
    return CanPlace() && tree_.Open(json::object());
  }
  bool end_object() override {
    if (mode_ == Mode::kTree) return tree_.Close();
    mode_ = Mode::kTree;
    return true;
  }
  bool start_array(size_t) override {
    if (mode_ == Mode::kTree && AtTable("merges")) {
      mode_ = Mode::kMerges;
      tables_.has_merges = true;
      return true;
    }
    if (mode_ == Mode::kTree && AtTable("vocab")) {
      mode_ = Mode::kPieces;
      tables_.has_pieces = true;
      return true;
    }
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kPair;
      pair_.clear();
      return true;
    }
    if (mode_ == Mode::kPieces) {
      mode_ = Mode::kPiece;
      piece_ = tables_.scores.size();
      return true;
    }
    return CanPlace() && tree_.Open(json::array());
  }
  bool end_array() override {
    if (mode_ == Mode::kTree) return tree_.Close();
    if (mode_ == Mode::kMerges || mode_ == Mode::kPieces) {
      mode_ = Mode::kTree;
      return true;
    }
    if (mode_ == Mode::kPiece) {
      mode_ = Mode::kPieces;
      return tables_.scores.size() == piece_ + 1 || NoPiece();
    }
    mode_ = Mode::kMerges;
    if (pair_.size() != 2) return tree_.Fail("a merge without exactly two parts");
    return AddMerge(pair_[0], pair_[1]);
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return tree_.Fail(absl::StrCat("is not valid JSON at byte ", position));
  }

 private:
  // kPieces: a vocabulary in an array; kPiece: within [text, score].
  enum class Mode { kTree, kVocabulary, kMerges, kPair, kPieces, kPiece };

  // Whether the value that begins here is root.model.`name`.
  bool AtTable(std::string_view name) {
    if (tree_.open().size() != 2 || tree_.key() != name || !tree_.root().is_object()) return false;
    const auto model = tree_.root().find("model");
    return model != tree_.root().end() && &*model == tree_.open()[1] && model->is_object();
  }

  bool CanPlace() {
    if (mode_ == Mode::kTree) return true;
    if (mode_ == Mode::kPieces || mode_ == Mode::kPiece) return NoPiece();
    return tree_.Fail(mode_ == Mode::kVocabulary
                          ? absl::StrCat("the id of ", Shown(entry_), " is no integer")
                          : std::string("a merge that is neither text nor a pair"));
  }
  bool Value(json value) { return CanPlace() && tree_.Place(std::move(value)) != nullptr; }

  bool Id(int64_t id) {
    if (id < 0 || id >= kMaxVocabularySize) {
      return tree_.Fail(absl::StrCat("the id of ", Shown(entry_), " is out of range: 0 to ",
                                     kMaxVocabularySize - 1));
    }
    return AddEntry(entry_, static_cast<int32_t>(id));
  }

  bool AddEntry(const std::string& text, int32_t id) {
    Vocabulary& ids = tables_.vocabulary.ids;
    if (ids.full()) {
      return tree_.Fail(absl::StrCat("more than ", kMaxVocabularySize, " vocabulary entries"));
    }
    if (ids.Add(text, id)) return true;
    return tree_.Fail(absl::StrCat("vocabulary entry ", Shown(text), " is there twice"));
  }

  bool NoPiece() {
    return tree_.Fail(absl::StrCat("vocabulary entry ", tables_.scores.size(),
                                   " is no pair of a text and a score"));
  }

  // Of piece_ the text comes first, and then the score.
  bool PieceText(const std::string& text) {
    if (tables_.vocabulary.ids.size() != piece_) return NoPiece();
    return AddEntry(text, static_cast<int32_t>(piece_));
  }

  bool Score(double score) {
    if (tables_.vocabulary.ids.size() != piece_ + 1 || tables_.scores.size() != piece_) {
      return NoPiece();
    }
    tables_.scores.push_back(score);
    return true;
  }

  bool MergeLine(const std::string& line) {
    if (absl::StartsWith(line, "#version")) return true;
    const auto merge = ParseMerge(line);
    if (merge) return AddMerge(merge->first, merge->second);
    return tree_.Fail(absl::StrCat("merge ", Shown(line), " does not have two parts"));
  }

  bool MergePart(std::string& part) {
    if (pair_.size() == 2) return tree_.Fail("a merge of more than two parts");
    pair_.push_back(std::move(part));
    return true;
  }

  bool AddMerge(std::string_view left, std::string_view right) {
    if (tables_.vocabulary.merges.Add(left, right)) return true;
    return tree_.Fail(absl::StrCat("more than ", kMaxMerges, " merges"));
  }

  Mode mode_ = Mode::kTree;
  JsonTree tree_;
  TokenizerTree tables_;
  std::string entry_;  // of the vocabulary
  std::vector<std::string> pair_;
  size_t piece_ = 0;  // which one kPiece is within
};

}  // namespace

std::optional<std::pair<std::string_view, std::string_view>> ParseMerge(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  return std::make_pair(line.substr(0, space), line.substr(space + 1));
}

absl::StatusOr<TokenizerTree> ReadTokenizerTree(std::string_view text) {
  if (absl::Status status = CheckJsonTokens(text); !status.ok()) return status;
  TreeBuilder builder(text.size());
  const bool parsed = json::sax_parse(text.begin(), text.end(), &builder);
  if (!parsed) return absl::InvalidArgumentError(builder.error());
  TokenizerTree tree = builder.Take();
  if (!tree.root.is_object()) return absl::InvalidArgumentError("is no JSON object");
  return tree;
}

}  // namespace sirocco
