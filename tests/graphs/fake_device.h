// A device that computes nothing: it notes what is asked of it, in order, and its sampler answers
// with what a test can foresee. Memory is the host's, so that tests can look into it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/operation_ops.h"

namespace sirocco {

class FakeDevice : public Device, private OperationOps {
 public:
  // An operation that ran, or was recorded.
  struct Issued {
    Operation operation;
    int32_t rows = 0;
  };

  std::string_view backend() const override { return "fake"; }
  std::string name() const override { return "fake"; }
  uint64_t FreeBytes() const override { return uint64_t{1} << 40; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) override;
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) override;
  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override;
  absl::Status CopyToHost(void* host, const void* device, size_t bytes) override;
  absl::Status CopyOnDevice(void* to, const void* from, size_t bytes) override;
  absl::Status Synchronize() override;
  absl::Status BeginRecord() override;
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override;
  absl::Status Launch(const Recording& recording) override;
  DecoderLayersOffer OfferDecoderLayers(const DecoderLayersShape&) const override { return offer; }
  Ops& ops() override { return *this; }

  // "allocate workspace", "reserve kv", "map kv", "begin", "rms_norm 4", "end", "launch", "sync".
  std::vector<std::string> events;
  std::vector<Issued> run;  // those that ran: issued, or by a recording
  bool log = true;          // off: events and run stay, and nothing here allocates
  bool recording = false;
  std::string refuse;  // an operation of this name fails
  DecoderLayersOffer offer;
  std::vector<std::byte*> copied_to;  // destinations of CopyToDevice

  // Of what ran, all operations of one kind.
  template <typename Params>
  std::vector<Params> Ran() const {
    std::vector<Params> found;
    for (const Issued& issued : run) {
      if (const Params* params = std::get_if<Params>(&issued.operation)) found.push_back(*params);
    }
    return found;
  }

 private:
  absl::Status RunAny(const Operation& operation) override;
  // Applies what a test wants to see the effect of.
  void Effect(const BeginStepParams& params);
  void Effect(const SampleParams& params);
  void Effect(const ScoreTokensParams& params);
  template <typename Params>
  void Effect(const Params&) {}
  void Happen(const Operation& operation);

  std::vector<Operation> recorded_;
};

}  // namespace sirocco
