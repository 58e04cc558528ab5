#include "engine/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"

namespace sirocco {
namespace {

// Backtracking steps at one place of a text. The patterns in use need a few a byte.
constexpr uint32_t kMatchLimit = 100'000;
constexpr uint32_t kMatchLimitPerByte = 8;
// A pattern that looks far ahead in vain at every place takes quadratic time. So the places are
// tried a few at a time, and a clock is read in between.
constexpr size_t kPlaces = 64;
constexpr int64_t kMaxNanoseconds = 5'000'000'000;  // of this thread's time, for one finder
constexpr size_t kMaxPattern = 64 << 10;            // bytes
constexpr uint32_t kHeapLimitKib = 64 * 1024;       // of the interpreter's backtracking frames

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return absl::StrCat("error ", code);
  return reinterpret_cast<const char*>(buffer);
}

int64_t ThreadNanoseconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

PCRE2_SPTR Units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  return Compile(pattern, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
}

absl::StatusOr<Regex> Regex::CompileLiteral(std::string_view text) {
  return Compile(text, PCRE2_UTF | PCRE2_LITERAL);
}

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern, uint32_t options) {
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (context == nullptr) return absl::ResourceExhaustedError("regex: out of memory");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  pcre2_set_max_pattern_length(context.get(), kMaxPattern);

  int error = 0;
  PCRE2_SIZE offset = 0;
  std::shared_ptr<pcre2_code> code(
      pcre2_compile(Units(pattern), pattern.size(), options | PCRE2_USE_OFFSET_LIMIT, &error,
                    &offset, context.get()),
      [](pcre2_code* code) { pcre2_code_free(code); });
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("regex: ", ErrorText(error), " at offset ", offset, " of ", Shown(pattern)));
  }
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("regex: matches the empty string: ", Shown(pattern)));
  }
  // Where no executable memory can be had the interpreter gives the same matches.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

void Regex::Finder::Free::operator()(pcre2_match_context* context) const {
  pcre2_match_context_free(context);
}
void Regex::Finder::Free::operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }

Regex::Finder::Finder(const Regex& regex)
    : regex_(regex),
      start_(ThreadNanoseconds()),
      context_(pcre2_match_context_create(nullptr)),
      data_(pcre2_match_data_create(1, nullptr)) {
  if (context_ != nullptr) pcre2_set_heap_limit(context_.get(), kHeapLimitKib);
}

void Regex::Finder::Start(std::string_view text) {
  text_ = text;
  pos_ = 0;
  if (context_ == nullptr) return;
  const uint64_t limit = kMatchLimit + uint64_t{kMatchLimitPerByte} * text.size();
  pcre2_set_match_limit(context_.get(),
                        static_cast<uint32_t>(std::min<uint64_t>(limit, UINT32_MAX)));
}

int Regex::Finder::Match(uint32_t options) {
  return pcre2_match(regex_.code_.get(), Units(text_), text_.size(), pos_,
                     PCRE2_NO_UTF_CHECK | options, data_.get(), context_.get());
}

absl::StatusOr<std::optional<Regex::Span>> Regex::Finder::Next() {
  if (context_ == nullptr || data_ == nullptr) {
    return absl::ResourceExhaustedError("regex: out of memory");
  }
  int rc = PCRE2_ERROR_NOMATCH;
  while (pos_ < text_.size()) {
    const size_t last = pos_ + kPlaces - 1;
    pcre2_set_offset_limit(context_.get(), last);
    rc = Match(0);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = Match(PCRE2_NO_JIT);  // its frames are on the heap
    if (rc != PCRE2_ERROR_NOMATCH) break;
    if (ThreadNanoseconds() - start_ > kMaxNanoseconds) {
      return absl::ResourceExhaustedError(
          absl::StrCat("regex: takes too long in a text of ", text_.size(), " bytes"));
    }
    pos_ = last + 1;
    while (pos_ < text_.size() && (static_cast<uint8_t>(text_[pos_]) & 0xC0) == 0x80) ++pos_;
  }
  if (rc == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (rc < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("regex: ", ErrorText(rc), " in a text of ", text_.size(), " bytes"));
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data_.get());
  pos_ = ends[1];
  return Span{ends[0], ends[1]};
}

}  // namespace sirocco
