// Bearer tokens, and what each of them may call. A file of them, a line each:
//
//   # whoever has this one may call everything
//   2vFqZJ0p3s1H5cUe
//   # and this one two methods only
//   N8pPdU0x7yQmXwKa Generate,GenerateStream
//
// Tokens are kept as SHA-256 digests. A token that comes is compared with all of them, in constant
// time, so that neither how long that takes nor where it ends tells anything of them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sirocco {

// What a call is refused for.
enum class TokenRefusal : uint8_t { kNone, kMissing, kUnknown, kForbidden };

struct TokenVerdict {
  TokenRefusal refusal = TokenRefusal::kNone;
  absl::Status status;  // UNAUTHENTICATED or PERMISSION_DENIED
};

class Tokens {
 public:
  // INVALID_ARGUMENT names the line, and never what stands there.
  static absl::StatusOr<Tokens> Parse(std::string_view text);

  // `method`: the last part of a call's path, as "Generate". `authorization`: all values of that
  // metadata key.
  TokenVerdict Check(std::string_view method,
                     std::span<const std::string_view> authorization) const;

  size_t size() const { return entries_.size(); }

 private:
  static constexpr size_t kDigestBytes = 32;
  using Digest = std::array<uint8_t, kDigestBytes>;
  struct Entry {
    Digest digest;
    std::vector<std::string> methods;  // empty: all
  };
  static Digest DigestOf(std::string_view token);
  static absl::StatusOr<Entry> ParseLine(std::string_view line, int number);
  const Entry* Find(std::string_view token) const;

  std::vector<Entry> entries_;
};

// The first token of such a file: what a client sends.
absl::StatusOr<std::string> FirstToken(std::string_view text);

}  // namespace sirocco
