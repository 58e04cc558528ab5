// Entries of a vocabulary by their beginnings: which of them a text begins with, byte by byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/vocabulary.h"

namespace sirocco {

// Nine bytes a node; immutable, any thread.
class PieceTrie {
 public:
  // Bytes of an entry: from one place of a text a walk takes no more steps. SentencePiece makes
  // none of more than 16 characters unless it is told to.
  static constexpr size_t kMaxPiece = 512;
  // Different beginnings of entries.
  static constexpr size_t kMaxNodes = 1 << 22;

  PieceTrie() = default;
  // Of these entries, each once. INVALID_ARGUMENT: one is too long, or there are too many nodes.
  static absl::StatusOr<PieceTrie> Make(const Vocabulary& vocabulary,
                                        std::vector<uint32_t> entries);

  // A walk begins at node 0. Moves to where `byte` leads; false: no entry goes on so.
  bool Step(char byte, uint32_t* node) const;
  // The entry that ends at a node; -1: none.
  int32_t Entry(uint32_t node) const { return entries_[node]; }

 private:
  // Nodes in the order of their depth, and those with one parent side by side, by byte.
  std::vector<uint32_t> first_child_ = {1, 1};  // by node; one more at the end
  std::vector<char> bytes_ = {0};               // that leads to the node
  std::vector<int32_t> entries_ = {-1};
};

}  // namespace sirocco
