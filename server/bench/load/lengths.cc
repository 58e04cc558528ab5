#include "server/bench/load/lengths.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/bench/load/draws.h"

namespace sirocco {
namespace {

constexpr size_t kMostLines = 1 << 20;
constexpr double kMostSigma = 10;

absl::Status Allowed(const std::string& given, int32_t least) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", given,
                   "' is no length; allowed are N, uniform:LEAST:MOST, "
                   "lognormal:MEDIAN:SIGMA:MOST (SIGMA up to ",
                   kMostSigma, ") and file:PATH (one length a line), each length from ", least,
                   " to ", Lengths::kMost));
}

bool ReadLength(const std::string& text, int32_t least, int32_t& out) {
  return absl::SimpleAtoi(text, &out) && out >= least && out <= Lengths::kMost;
}

}  // namespace

absl::StatusOr<Lengths> Lengths::Parse(const std::string& text, int32_t least) {
  absl::StatusOr<Kind> kind = ParseKind(text, least);
  if (!kind.ok()) return kind.status();
  return Lengths(text, *std::move(kind));
}

absl::StatusOr<Lengths::Kind> Lengths::ParseKind(const std::string& text, int32_t least) {
  if (constexpr std::string_view kFile = "file:"; text.starts_with(kFile)) {
    return ReadFile(text.substr(kFile.size()), least);
  }
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  if (parts.size() == 1) {
    Fixed fixed{};
    if (ReadLength(parts[0], least, fixed.length)) return fixed;
  } else if (parts[0] == "uniform" && parts.size() == 3) {
    Uniform uniform{};
    if (ReadLength(parts[1], least, uniform.least) &&
        ReadLength(parts[2], uniform.least, uniform.most)) {
      return uniform;
    }
  } else if (parts[0] == "lognormal" && parts.size() == 4) {
    Lognormal lognormal{};
    lognormal.least = least;
    int32_t median = 0;
    if (ReadLength(parts[1], least, median) && ReadLength(parts[3], median, lognormal.most) &&
        absl::SimpleAtod(parts[2], &lognormal.sigma) && lognormal.sigma >= 0 &&
        lognormal.sigma <= kMostSigma) {
      lognormal.median = median;
      return lognormal;
    }
  }
  return Allowed(text, least);
}

absl::StatusOr<Lengths::Kind> Lengths::ReadFile(const std::string& path, int32_t least) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  Listed listed;
  std::string line;
  for (size_t number = 1; std::getline(in, line); ++number) {
    const std::string text(absl::StripAsciiWhitespace(line));
    if (text.empty()) continue;
    int32_t length = 0;
    if (!ReadLength(text, least, length)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": a length from ", least,
                                                     " to ", kMost, " is needed, alone in a line"));
    }
    if (listed.lengths.size() == kMostLines) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": more than ", kMostLines, " lengths"));
    }
    listed.lengths.push_back(length);
  }
  if (in.bad()) return absl::InvalidArgumentError(absl::StrCat(path, ": reading failed"));
  if (listed.lengths.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has no length"));
  }
  return listed;
}

int32_t Lengths::At(Of of, uint64_t seed, uint64_t index) const {
  Draws draws(seed, of == Of::kPrompts ? Draws::kPromptLength : Draws::kOutputLength, index);
  if (const auto* fixed = std::get_if<Fixed>(&kind_)) return fixed->length;
  if (const auto* listed = std::get_if<Listed>(&kind_)) {
    return listed->lengths[index % listed->lengths.size()];
  }
  if (const auto* uniform = std::get_if<Uniform>(&kind_)) {
    const auto values = static_cast<uint32_t>(uniform->most - uniform->least + 1);
    return uniform->least + static_cast<int32_t>(draws.Below(values));
  }
  const auto& lognormal = std::get<Lognormal>(kind_);
  const double drawn = lognormal.median * std::exp(lognormal.sigma * draws.Normal());
  const double within =
      std::clamp(drawn, static_cast<double>(lognormal.least), static_cast<double>(lognormal.most));
  return static_cast<int32_t>(std::lround(within));
}

int32_t Lengths::Longest() const {
  if (const auto* fixed = std::get_if<Fixed>(&kind_)) return fixed->length;
  if (const auto* uniform = std::get_if<Uniform>(&kind_)) return uniform->most;
  if (const auto* lognormal = std::get_if<Lognormal>(&kind_)) return lognormal->most;
  const std::vector<int32_t>& listed = std::get<Listed>(kind_).lengths;
  return *std::max_element(listed.begin(), listed.end());
}

std::optional<int32_t> Lengths::fixed() const {
  if (const auto* fixed = std::get_if<Fixed>(&kind_)) return fixed->length;
  return std::nullopt;
}

}  // namespace sirocco
