// An operation that is resolved: checked parameters, the work split and the function that does it.
// Running a Call, now or from a recording, allocates nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "absl/status/status.h"

namespace sirocco::cpu {

// Scratch memory, of one thread and of all together; sized when operations are resolved.
struct Scratch {
  std::byte* own = nullptr;     // this thread's
  std::byte* shared = nullptr;  // the same for all tasks of an operation
};

class Call {
 public:
  static constexpr size_t kParamBytes = 512;
  static constexpr int kMaxPhases = 4;

  // Task `task` of phase `phase`. A phase begins when the one before has ended.
  using Function = void (*)(const void* params, int phase, int32_t task, const Scratch& scratch);
  // What only the device's memory can tell, asked once before the tasks. Null: nothing to ask.
  using Check = absl::Status (*)(const void* params);

  // Params: plain data. kRun(params, phase, task, scratch), tasks[phase] times each.
  template <auto kRun, typename Params>
  static Call Of(const Params& params, std::initializer_list<int64_t> tasks) {
    static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= kParamBytes);
    Call call;
    std::memcpy(call.params_.data(), &params, sizeof(Params));
    call.function_ = [](const void* data, int phase, int32_t task, const Scratch& scratch) {
      kRun(*static_cast<const Params*>(data), phase, task, scratch);
    };
    for (const int64_t count : tasks) call.tasks_[call.phases_++] = static_cast<int32_t>(count);
    return call;
  }

  template <auto kCheck, typename Params>
  void AddCheck() {
    check_ = [](const void* data) { return kCheck(*static_cast<const Params*>(data)); };
  }

  absl::Status CheckMemory() const {
    return check_ == nullptr ? absl::OkStatus() : check_(params_.data());
  }
  int phases() const { return phases_; }
  int32_t tasks(int phase) const { return tasks_[phase]; }
  void RunTask(int phase, int32_t task, const Scratch& scratch) const {
    function_(params_.data(), phase, task, scratch);
  }

 private:
  alignas(16) std::array<std::byte, kParamBytes> params_;
  Function function_ = nullptr;
  Check check_ = nullptr;
  int phases_ = 0;
  std::array<int32_t, kMaxPhases> tasks_ = {};
};

}  // namespace sirocco::cpu
