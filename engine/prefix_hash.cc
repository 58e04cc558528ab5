#include "engine/prefix_hash.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>

namespace sirocco {
namespace {

// SipHash-2-4 of whole 64-bit words, 128 bits of output.
class SipHash {
 public:
  explicit SipHash(const uint64_t (&key)[2])
      : v0_(key[0] ^ 0x736f6d6570736575u),
        v1_(key[1] ^ 0x646f72616e646f6du ^ 0xee),
        v2_(key[0] ^ 0x6c7967656e657261u),
        v3_(key[1] ^ 0x7465646279746573u) {}

  void Add(uint64_t word) {
    v3_ ^= word;
    Rounds(2);
    v0_ ^= word;
  }

  BlockHash End() {
    v2_ ^= 0xee;
    Rounds(4);
    BlockHash hash;
    hash.low = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    Rounds(4);
    hash.high = v0_ ^ v1_ ^ v2_ ^ v3_;
    return hash;
  }

 private:
  void Rounds(int count) {
    for (int i = 0; i < count; ++i) {
      v0_ += v1_;
      v1_ = std::rotl(v1_, 13) ^ v0_;
      v0_ = std::rotl(v0_, 32);
      v2_ += v3_;
      v3_ = std::rotl(v3_, 16) ^ v2_;
      v0_ += v3_;
      v3_ = std::rotl(v3_, 21) ^ v0_;
      v2_ += v1_;
      v1_ = std::rotl(v1_, 17) ^ v2_;
      v2_ = std::rotl(v2_, 32);
    }
  }

  uint64_t v0_, v1_, v2_, v3_;
};

uint64_t RandomWord(std::random_device& device) {
  const uint64_t high = device();
  return high << 32 | (device() & 0xffffffffu);
}

}  // namespace

PrefixHasher::PrefixHasher(int32_t block_size) : block_size_(block_size) {
  std::random_device device;
  for (uint64_t& word : key_) word = RandomWord(device);
}

// The first word keeps a root and a block of the same bytes apart, and salts by their length.
BlockHash PrefixHasher::Root(std::string_view salt) const {
  SipHash hash(key_);
  hash.Add(salt.size());
  for (size_t at = 0; at < salt.size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, salt.data() + at, std::min(sizeof(word), salt.size() - at));
    hash.Add(word);
  }
  return hash.End();
}

BlockHash PrefixHasher::Next(const BlockHash& before, std::span<const int32_t> block) const {
  SipHash hash(key_);
  hash.Add(~uint64_t{0});
  hash.Add(before.low);
  hash.Add(before.high);
  for (const int32_t token : block) hash.Add(static_cast<uint32_t>(token));
  return hash.End();
}

void PrefixHasher::Append(std::span<const int32_t> tokens, std::string_view salt,
                          std::vector<BlockHash>* names) const {
  const size_t size = block_size_;
  const size_t blocks = tokens.size() / size;
  if (names->size() >= blocks) return;
  BlockHash before = names->empty() ? Root(salt) : names->back();
  while (names->size() < blocks) {
    before = Next(before, tokens.subspan(names->size() * size, size));
    names->push_back(before);
  }
}

}  // namespace sirocco
