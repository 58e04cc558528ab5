#include "server/security/tokens.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace sirocco {
namespace {

constexpr size_t kMaxTokens = 10'000;
constexpr size_t kMaxTokenBytes = 4096;
constexpr std::string_view kScheme = "bearer ";

// What rules may name: all that a token is needed for.
constexpr std::array<absl::string_view, 6> kMethods = {
    "Generate", "GenerateStream", "Tokenize", "Detokenize", "GetModel", "ServerReflectionInfo"};

// The characters of RFC 6750's b64token.
bool IsTokenCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("-._~+/=").find(c) != std::string_view::npos;
}

absl::string_view Abseil(std::string_view text) { return {text.data(), text.size()}; }

absl::Status BadLine(int number, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", what));
}

// The lines that hold something, with their numbers.
std::vector<std::pair<int, std::string_view>> Lines(std::string_view text) {
  std::vector<std::pair<int, std::string_view>> out;
  int number = 0;
  for (const absl::string_view raw : absl::StrSplit(Abseil(text), '\n')) {
    ++number;
    const absl::string_view line = absl::StripAsciiWhitespace(raw);
    if (line.empty() || line.front() == '#') continue;
    out.emplace_back(number, std::string_view(line.data(), line.size()));
  }
  return out;
}

}  // namespace

Tokens::Digest Tokens::DigestOf(std::string_view token) {
  Digest digest;
  SHA256(reinterpret_cast<const uint8_t*>(token.data()), token.size(), digest.data());
  return digest;
}

absl::StatusOr<Tokens::Entry> Tokens::ParseLine(std::string_view line, int number) {
  const std::vector<std::string> words =
      absl::StrSplit(Abseil(line), absl::ByAnyChar(" \t"), absl::SkipEmpty());
  const std::string& token = words.front();
  if (words.size() > 2) {
    return BadLine(number, "more than a token and a list of methods (without spaces)");
  }
  if (token.size() > kMaxTokenBytes || !std::all_of(token.begin(), token.end(), IsTokenCharacter)) {
    return BadLine(number, absl::StrCat("a token is letters, digits and -._~+/=, at most ",
                                        kMaxTokenBytes, " of them"));
  }
  Entry entry = {DigestOf(token), {}};
  if (words.size() == 1) return entry;
  for (const absl::string_view name : absl::StrSplit(words.back(), ',')) {
    if (std::find(kMethods.begin(), kMethods.end(), name) == kMethods.end()) {
      return BadLine(number,
                     absl::StrCat("no list of methods; there are ", absl::StrJoin(kMethods, ", ")));
    }
    entry.methods.emplace_back(name);
  }
  return entry;
}

absl::StatusOr<Tokens> Tokens::Parse(std::string_view text) {
  Tokens out;
  for (const auto& [number, line] : Lines(text)) {
    if (out.size() == kMaxTokens)
      return BadLine(number, absl::StrCat("over ", kMaxTokens, " tokens"));
    absl::StatusOr<Entry> entry = ParseLine(line, number);
    if (!entry.ok()) return entry.status();
    const bool again = std::any_of(out.entries_.begin(), out.entries_.end(),
                                   [&](const Entry& e) { return e.digest == entry->digest; });
    if (again) return BadLine(number, "the token stands there twice");
    out.entries_.push_back(*std::move(entry));
  }
  if (out.entries_.empty()) return absl::InvalidArgumentError("holds no token");
  return out;
}

const Tokens::Entry* Tokens::Find(std::string_view token) const {
  const Digest digest = DigestOf(token);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    const bool same = CRYPTO_memcmp(entry.digest.data(), digest.data(), kDigestBytes) == 0;
    found = same ? &entry : found;
  }
  return found;
}

TokenVerdict Tokens::Check(std::string_view method,
                           std::span<const std::string_view> authorization) const {
  if (authorization.size() != 1 ||
      !absl::StartsWithIgnoreCase(Abseil(authorization.front()), Abseil(kScheme))) {
    return {TokenRefusal::kMissing,
            absl::UnauthenticatedError("the metadata 'authorization' must be 'Bearer TOKEN'")};
  }
  const Entry* entry = Find(authorization.front().substr(kScheme.size()));
  if (entry == nullptr) {
    return {TokenRefusal::kUnknown, absl::UnauthenticatedError("the token is not known")};
  }
  const std::vector<std::string>& allowed = entry->methods;
  if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), method) == allowed.end()) {
    return {TokenRefusal::kForbidden,
            absl::PermissionDeniedError(absl::StrCat("this token does not allow this method; it "
                                                     "allows: ",
                                                     absl::StrJoin(allowed, ", ")))};
  }
  return {};
}

absl::StatusOr<std::string> FirstToken(std::string_view text) {
  const auto lines = Lines(text);
  if (lines.empty()) return absl::InvalidArgumentError("holds no token");
  const std::string_view line = lines.front().second;
  return std::string(line.substr(0, line.find_first_of(" \t")));
}

}  // namespace sirocco
