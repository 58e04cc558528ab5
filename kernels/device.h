// The device seam: memory, order of work, recording and replay. One implementation a backend.
//
// Threads: a Device belongs to one thread (the engine thread) after Create; only `counters` may be
// read from others. Work is ordered: an operation sees what was issued before it. The CPU backend
// runs an operation before the call returns; a GPU backend only enqueues it, so host memory that a
// call reads or writes must stay valid until Synchronize.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/decoder_layers.h"
#include "kernels/dtype.h"

namespace sirocco {

class Ops;
struct MatMulParams;
struct Matrix;

// What memory is for: a label of the memory plan and of `sirocco_memory_bytes{use}`.
enum class MemoryUse : uint8_t { kWeights, kWorkspace, kLanes, kKv, kGraphs };
inline constexpr int kMemoryUses = 5;
std::string_view NameOf(MemoryUse use);

// Device memory, freed with the object. Zeroed when made.
class Buffer {
 public:
  virtual ~Buffer() = default;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 protected:
  Buffer(void* data, size_t bytes) : data_(data), bytes_(bytes) {}
  void* data_;
  size_t bytes_;
};

// An address range that may be captured by recordings before memory stands behind it.
// Map puts (zeroed) memory behind its first `bytes`; once only.
class Reservation : public Buffer {
 public:
  virtual absl::Status Map(size_t bytes) = 0;

 protected:
  using Buffer::Buffer;
};

// A step that was recorded once and is replayed as a whole: on the CPU a flat list of resolved
// calls, on CUDA an executable graph. It refers to the buffers it was recorded on.
class Recording {
 public:
  virtual ~Recording() = default;
  // Operations held.
  virtual int size() const = 0;
  // How often in it a kernel may begin while the one before it ends: on CUDA its edges of
  // programmatic dependent launch.
  virtual int overlaps() const { return 0; }
};

// A point in the order of work.
struct DeviceMark {
  uint64_t value = 0;
};

// Monotonic, readable from any thread.
struct DeviceCounters {
  // Memory requests (Allocate, Reserve, Map, AllocateHost) and whatever an operation or a copy had
  // to allocate itself.
  std::atomic<uint64_t> allocations{0};
  std::atomic<uint64_t> launches{0};    // operations issued one by one
  std::atomic<uint64_t> recordings{0};  // made
  std::atomic<uint64_t> replays{0};     // recordings launched
  std::atomic<uint64_t> bytes[kMemoryUses] = {};
  std::atomic<uint64_t> host_bytes{0};  // AllocateHost's, and what copies are staged in
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string_view backend() const = 0;  // "cpu" or "cuda"
  // Bytes that can still be allocated here, by this process as by others.
  virtual uint64_t FreeBytes() const = 0;
  // Bytes that there are, free or not; a plan of memory takes a share of them.
  virtual uint64_t TotalBytes() const { return FreeBytes(); }
  virtual std::string name() const = 0;  // of the hardware, for people

  // Whether weights and KV cache may be of this type; the KV cache alone, where it is float8.
  virtual bool Offers(DType /*dtype*/) const { return true; }
  // The type of activations beside the residual stream (params.h), for weights of this type.
  virtual DType ActivationDType(DType /*weights*/) const { return DType::kFloat32; }
  // Whether products and embeddings take weights in blocks of this type.
  virtual bool ComputesFromBlocks(DType /*type*/) const { return false; }
  // Brings a matrix of weights, which lies on the device as files store it, into the order that
  // operations take, in place and once. UNIMPLEMENTED: blocks that the device does not compute
  // from.
  virtual absl::Status Pack(const Matrix& matrix);

  // Work is only enqueued by the calls that ask for it, so that a step can be issued before the
  // results of the one before are read.
  virtual bool runs_ahead() const { return false; }

  // Where a step's norms belong: with the products that read the normed rows, each of whose parts
  // computes them anew beside its weights' way here, in steps of so many rows at most; with more,
  // with the product that writes the rows, once.
  // INT32_MAX: in all steps.
  virtual int32_t norms_where_read_rows() const { return 0; }

  // Whether a position's results are the same bits in prefill as in decode only where both are made
  // of the same operations: then prefill is a decode step's over all of a prompt's rows, but for
  // QkvAttentionParams, which is QkvEndParams and DecodeAttentionParams there. (CUDA where it is
  // batch-invariant. The CPU's operations agree whichever they are.)
  virtual bool prefill_as_decode() const { return false; }

  // Whether a step of prompts takes the host as long to launch as the device to run, so that it is
  // better filled up to a number of rows of which there is a recording.
  virtual bool fills_prefill() const { return false; }

  // For which steps of a decoder of these layers DecoderLayersParams, of all layers or of each, is
  // faster than a layer's operations one after the other.
  virtual DecoderLayersOffer OfferDecoderLayers(const DecoderLayersShape& /*shape*/) const {
    return {};
  }

  // Up to how many rows a step whose norms are with the products that write is faster with its
  // products in pairs (operation_pairs.h).
  virtual int32_t paired_rows() const { return 0; }

  // RESOURCE_EXHAUSTED names the use, the bytes asked and the bytes free.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) = 0;
  virtual absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) = 0;

  // Host memory that copies read and write directly, without a stop in between. Zeroed.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes);

  // Ordered with operations. `host` memory is not used after Synchronize, nor after Wait for a mark
  // set behind the copy.
  virtual absl::Status CopyToDevice(void* device, const void* host, size_t bytes) = 0;
  virtual absl::Status CopyToHost(void* host, const void* device, size_t bytes) = 0;
  // From device memory to other device memory, ordered with operations.
  virtual absl::Status CopyOnDevice(void* to, const void* from, size_t bytes) = 0;
  // Returns when all issued work has ended; the first fault of the device since the last call.
  virtual absl::Status Synchronize() = 0;

  // Marks the end of all work issued so far. A mark is good for the next 1,000 marks.
  virtual absl::StatusOr<DeviceMark> Mark();
  // Returns when the work before the mark has ended; the first fault of the device.
  virtual absl::Status Wait(DeviceMark mark);
  // The device's time between two marks that have been reached.
  virtual absl::StatusOr<double> Seconds(DeviceMark from, DeviceMark to);

  // Operations between the two are not run: the device sets up what each needs (scratch memory, the
  // choice of a kernel, the kernel itself), so that later ones of these shapes and smaller ones
  // allocate and load nothing.
  virtual absl::Status BeginPrepare();
  virtual absl::Status EndPrepare();

  // Operations between the two are recorded, not run. Nothing may be allocated, copied or launched
  // in between, so what they need has been prepared; recordings do not nest. The device memory that
  // a recording takes beside buffers counts as MemoryUse::kGraphs.
  virtual absl::Status BeginRecord() = 0;
  virtual absl::StatusOr<std::unique_ptr<Recording>> EndRecord() = 0;
  virtual absl::Status Launch(const Recording& recording) = 0;

  // Bytes a second of reading `bytes` of memory that no cache holds, by all of the device: what a
  // step's bytes are measured against. Allocates and frees as much; not while anything else runs.
  virtual absl::StatusOr<double> MeasureReadBandwidth(size_t bytes);

  // What people should know of how operations will run, a line each, once they are prepared.
  virtual std::vector<std::string> notes() const { return {}; }

  // Tries the kernels that there are for each product, on the operands given, and returns what was
  // fastest as entries of the backend's kernel table, a line each. Products of one shape and number
  // of rows stand together, and are timed one after the other; those that no table has a part in
  // are left out. UNIMPLEMENTED: there is no table.
  virtual absl::StatusOr<std::vector<std::string>> TuneProducts(
      std::span<const MatMulParams> products);

  virtual Ops& ops() = 0;
  // Of a device that stands before another one, that one's.
  virtual const DeviceCounters& counters() const { return counters_; }

 protected:
  DeviceCounters counters_;
};

}  // namespace sirocco
