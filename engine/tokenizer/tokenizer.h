// Text to token ids and back. Exact to the model's own tokenizer files.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/proven_text.h"

namespace sirocco {

struct TokenizerOptions {
  bool add_special_tokens = true;     // what the post-processor adds (BOS)
  bool parse_special_tokens = false;  // tokens marked special are recognised in the text
  // With parse_special_tokens: only within so many bytes at the beginning of the text.
  size_t parsed_bytes = std::string_view::npos;
};

// How text is put together of tokens, beside their bytes.
struct DecodeRules {
  // U+FFFD stands for each byte that is no part of a character, not for each maximal subpart.
  bool replace_each_byte = false;
  // What is taken off the beginning of a text, up to so many times; one character.
  std::string strip;
  int strip_count = 0;
  // The first token of a text has no spaces.
  bool bare_first_token = false;
};

// Immutable after it is made; any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Text must be valid UTF-8 (else INVALID_ARGUMENT). Added tokens that are not special are always
  // recognised, as Hugging Face does. RESOURCE_EXHAUSTED: the model's own split pattern would take
  // too long on this text.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      const TokenizerOptions& options) const = 0;
  // A rendered chat: nothing is added; special tokens are recognised where every byte is trusted.
  virtual absl::StatusOr<std::vector<int32_t>> EncodeChat(const ProvenText& chat) const = 0;

  // The bytes a token stands for. Empty for ids out of range and ids without a token.
  virtual std::string_view TokenBytes(int32_t id) const = 0;
  // Marked special: left out of text where special tokens are skipped.
  virtual bool IsSpecial(int32_t id) const = 0;
  // Ids of the vocabulary and the added tokens: one more than the largest.
  virtual int32_t vocab_size() const = 0;

  virtual const DecodeRules& decode_rules() const;

  virtual std::optional<int32_t> bos_token_id() const = 0;
  virtual std::vector<int32_t> end_token_ids() const = 0;  // eos; may be empty
  // Text of bos/eos as templates see it; empty: none.
  virtual std::string_view bos_token() const = 0;
  virtual std::string_view eos_token() const = 0;
  // The chat template's source (GGUF metadata, tokenizer_config.json, chat_template.jinja).
  virtual const std::optional<std::string>& chat_template() const = 0;

  // Whole text of ids, as Hugging Face's decoders make it; bytes that are not valid UTF-8 become
  // U+FFFD. (With replace_each_byte Hugging Face gives up a whole run of byte tokens for one bad
  // byte; here, as text comes piece by piece, the characters before and behind it stay.)
  std::string Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;
};

// From a GGUF file, a Hugging Face directory, a tokenizer.json or a tokenizer.model. nullptr where
// the model has no tokenizer files; errors are one line: what is wrong, where, and what is
// supported.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& path);

}  // namespace sirocco
