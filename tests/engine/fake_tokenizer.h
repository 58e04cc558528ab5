// Sixty-four tokens: two special ones, words, letters, and parts of characters.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer.h"

namespace sirocco {

inline constexpr int32_t kFakeEnd = 0;  // special, and the model's end token
inline constexpr int32_t kFakeSpecial = 1;

class FakeTokenizer final : public Tokenizer {
 public:
  FakeTokenizer();

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view,
                                              const TokenizerOptions&) const override {
    return absl::UnimplementedError("decodes only");
  }
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const ProvenText&) const override {
    return absl::UnimplementedError("decodes only");
  }
  std::string_view TokenBytes(int32_t id) const override;
  bool IsSpecial(int32_t id) const override { return id == kFakeEnd || id == kFakeSpecial; }
  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_.size()); }
  std::optional<int32_t> bos_token_id() const override { return std::nullopt; }
  std::vector<int32_t> end_token_ids() const override { return {kFakeEnd}; }
  std::string_view bos_token() const override { return ""; }
  std::string_view eos_token() const override { return TokenBytes(kFakeEnd); }
  const std::optional<std::string>& chat_template() const override { return chat_template_; }

  // The id of a token's bytes.
  int32_t IdOf(std::string_view bytes) const;
  // Ids of one-byte tokens that spell an ASCII text of small letters.
  std::vector<int32_t> Spell(std::string_view text) const;

 private:
  std::vector<std::string> bytes_;  // [id]
  std::optional<std::string> chat_template_;
};

}  // namespace sirocco
