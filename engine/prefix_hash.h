// Names for what a KV block holds. A block's keys and values follow from all tokens up to its end,
// so its name is a hash chained over them: of the name of the block before, and of its own tokens.
// The chain begins with the request's cache_salt. The model needs no place in it: an engine has
// one.
//
// Two prompts must never be mixed, nor may a client find a prompt that meets another's: the hash is
// SipHash-2-4 with 128 bits of output under a key that the engine draws at random and tells nobody.
// For n blocks ever named, two differ and meet with a probability of n^2 / 2^129.
// (J.-P. Aumasson, D. J. Bernstein: SipHash, a fast short-input PRF, 2012, and its 128-bit
// variant.)
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace sirocco {

struct BlockHash {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const BlockHash&) const = default;
};

// Any thread.
class PrefixHasher {
 public:
  // With a key of its own. `block_size`: tokens a block.
  explicit PrefixHasher(int32_t block_size);

  int32_t block_size() const { return block_size_; }

  // Adds the names of the full blocks of `tokens` that come after those named already.
  void Append(std::span<const int32_t> tokens, std::string_view salt,
              std::vector<BlockHash>* names) const;

 private:
  BlockHash Root(std::string_view salt) const;
  BlockHash Next(const BlockHash& before, std::span<const int32_t> block) const;

  int32_t block_size_;
  uint64_t key_[2];
};

}  // namespace sirocco
