// Which calls are to fail: the nth of a kind, counted from the first on.
//
//   SIROCCO_FAULTS=device:launch@17,file:read@3,alloc@1000+,socket:write@5/7
//
// KIND[:CALL]@N: the Nth such call; N+: that one and all behind it; N/M: that one and every Mth
// behind it. A kind alone counts all of its calls. Each rule counts for itself. A value that begins
// with '/' names a file that holds the rules, and may be absent: it is looked at before each call,
// and what is new in it (by another file of that name) counts from zero.
//
// Nothing here allocates, locks a lock of others or calls what it makes fail: it runs inside of
// malloc's and read's callers.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <mutex>
#include <string_view>

namespace sirocco::faults {

class Schedule {
 public:
  // What SIROCCO_FAULTS says; empty: nothing fails.
  explicit Schedule(std::string_view value);

  // Whether it was understood.
  bool good() const { return good_; }
  // Whether this call fails; counts it. Any thread.
  bool Fails(std::string_view kind, std::string_view call);
  // Calls that failed since the rules were read.
  int64_t fired() const;

 private:
  static constexpr size_t kMaxRules = 16;
  static constexpr size_t kMaxText = 1024;

  struct Rule {
    std::string_view kind, call;  // in `text_`; an empty call: all of the kind
    int64_t first = 0;
    int64_t every = 0;  // 0: the first alone
    int64_t seen = 0;
  };

  void Follow();  // the file
  bool Parse(std::string_view text);
  bool ParseRule(std::string_view text, Rule& rule);

  mutable std::mutex mutex_;
  std::array<char, kMaxText> path_ = {};  // empty: there is no file
  struct stat file_ = {};                 // as it was when it was read
  std::array<char, kMaxText> text_ = {};
  std::array<Rule, kMaxRules> rules_ = {};
  size_t count_ = 0;
  int64_t fired_ = 0;
  bool good_ = false;
};

// Whether this call fails by the process's schedule, the variable SIROCCO_FAULTS. The file that
// SIROCCO_FAULTS_FIRED names gets a line for each that does. A value that is not understood ends
// the process.
bool Fault(std::string_view kind, std::string_view call);

}  // namespace sirocco::faults
