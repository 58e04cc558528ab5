// What ThreadSanitizer reports in tests although it is no race. Abseil comes uninstrumented from
// Debian: absl::Status counts its references out of the sanitizer's sight, so that the last holder's
// release looks unordered with what other threads read from their copies before.
extern "C" const char* __tsan_default_suppressions() {
  return "race:absl::*::Status::Unref\n";
}
