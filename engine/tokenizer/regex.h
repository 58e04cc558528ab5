// Regular expressions over UTF-8, by PCRE2 with its just-in-time compiler. Matching is bounded:
// a pattern that backtracks too much on a text is an error, never a hang.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

// PCRE2's types are macros over these.
struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;

namespace sirocco {

// Immutable; any thread.
class Regex {
 public:
  // `pattern` in PCRE2's syntax (from TranslateOniguruma), `^` and `$` at every line.
  // INVALID_ARGUMENT: a syntax error, or a pattern that can match nothing at all.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // Exactly this text.
  static absl::StatusOr<Regex> CompileLiteral(std::string_view text);

  struct Span {
    size_t begin = 0;
    size_t end = 0;
  };

  // The matches in texts, one text after another. Regex and text must outlive their use.
  class Finder {
   public:
    explicit Finder(const Regex& regex);
    void Start(std::string_view text);  // valid UTF-8
    // From left to right, none overlapping.
    // nullopt: no more. RESOURCE_EXHAUSTED: the text makes the pattern backtrack too much, or all
    // matching takes this thread more than five seconds.
    absl::StatusOr<std::optional<Span>> Next();

   private:
    struct Free {
      void operator()(pcre2_real_match_context_8* context) const;
      void operator()(pcre2_real_match_data_8* data) const;
    };
    int Match(uint32_t options);  // from pos_

    const Regex& regex_;
    const int64_t start_;  // this thread's clock, in nanoseconds
    std::string_view text_;
    size_t pos_ = 0;
    std::unique_ptr<pcre2_real_match_context_8, Free> context_;
    std::unique_ptr<pcre2_real_match_data_8, Free> data_;
  };

 private:
  explicit Regex(std::shared_ptr<const pcre2_real_code_8> code) : code_(std::move(code)) {}
  static absl::StatusOr<Regex> Compile(std::string_view pattern, uint32_t options);

  std::shared_ptr<const pcre2_real_code_8> code_;
};

}  // namespace sirocco
