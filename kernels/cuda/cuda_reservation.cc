#include "kernels/cuda/cuda_reservation.h"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_memory.h"

namespace sirocco::cuda {
namespace {

// The driver's calls, found at run time: the plugin is not linked against the driver, so that it
// can say what is missing where there is none.
struct DriverCalls {
  PFN_cuMemGetAllocationGranularity_v10020 granularity = nullptr;
  PFN_cuMemAddressReserve_v10020 address_reserve = nullptr;
  PFN_cuMemAddressFree_v10020 address_free = nullptr;
  PFN_cuMemCreate_v10020 create = nullptr;
  PFN_cuMemRelease_v10020 release = nullptr;
  PFN_cuMemMap_v10020 map = nullptr;
  PFN_cuMemUnmap_v10020 unmap = nullptr;
  PFN_cuMemSetAccess_v10020 set_access = nullptr;
  PFN_cuGetErrorName_v6000 error_name = nullptr;
  PFN_cuGetErrorString_v6000 error_string = nullptr;

  absl::Status StatusOf(const char* call, CUresult result) const {
    if (result == CUDA_SUCCESS) return absl::OkStatus();
    const char* name = nullptr;
    const char* text = nullptr;
    error_name(result, &name);
    error_string(result, &text);
    return absl::InternalError(absl::StrCat(call, ": ", name == nullptr ? "unknown error" : name,
                                            " (", text == nullptr ? "no text" : text, ")"));
  }
};

template <typename Function>
absl::Status Find(CudaContext& context, const char* name, unsigned version, Function* function) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  absl::Status status = context.Check(
      "cudaGetDriverEntryPointByVersion",
      cudaGetDriverEntryPointByVersion(name, &address, version, cudaEnableDefault, &found));
  if (!status.ok()) return status;
  if (found != cudaDriverEntryPointSuccess || address == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("the NVIDIA driver has no ", name));
  }
  *function = reinterpret_cast<Function>(address);
  return absl::OkStatus();
}

absl::StatusOr<DriverCalls> FindDriverCalls(CudaContext& context) {
  constexpr unsigned kMemory = 10020;  // since CUDA 10.2
  constexpr unsigned kErrors = 6000;
  DriverCalls calls;
  absl::Status status = Find(context, "cuMemGetAllocationGranularity", kMemory, &calls.granularity);
  if (status.ok()) status = Find(context, "cuMemAddressReserve", kMemory, &calls.address_reserve);
  if (status.ok()) status = Find(context, "cuMemAddressFree", kMemory, &calls.address_free);
  if (status.ok()) status = Find(context, "cuMemCreate", kMemory, &calls.create);
  if (status.ok()) status = Find(context, "cuMemRelease", kMemory, &calls.release);
  if (status.ok()) status = Find(context, "cuMemMap", kMemory, &calls.map);
  if (status.ok()) status = Find(context, "cuMemUnmap", kMemory, &calls.unmap);
  if (status.ok()) status = Find(context, "cuMemSetAccess", kMemory, &calls.set_access);
  if (status.ok()) status = Find(context, "cuGetErrorName", kErrors, &calls.error_name);
  if (status.ok()) status = Find(context, "cuGetErrorString", kErrors, &calls.error_string);
  if (!status.ok()) return status;
  return calls;
}

CUmemAllocationProp PropertiesOf(const CudaContext& context) {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = context.ordinal();
  return properties;
}

// The next multiple of `granularity`, at least one; none beyond what a size_t holds.
std::optional<size_t> RoundUp(size_t bytes, size_t granularity) {
  const size_t wanted = std::max<size_t>(bytes, 1);
  if (wanted > std::numeric_limits<size_t>::max() - granularity) return std::nullopt;
  return (wanted + granularity - 1) / granularity * granularity;
}

class DeviceReservation final : public Reservation {
 public:
  DeviceReservation(CUdeviceptr address, size_t bytes, size_t reserved, size_t granularity,
                    MemoryUse use, const DriverCalls& calls, CudaContext& context,
                    DeviceCounters& counters)
      : Reservation(reinterpret_cast<void*>(address), bytes),
        address_(address),
        reserved_(reserved),
        granularity_(granularity),
        use_(use),
        calls_(calls),
        context_(context),
        counters_(counters) {}

  ~DeviceReservation() override {
    // Unmapping does not wait for the work that uses the memory.
    if (mapped_ > 0) {
      static_cast<void>(context_.Synchronize());
      Unmap();
    }
    calls_.address_free(address_, reserved_);
  }

  absl::Status Map(size_t bytes) override {
    if (mapped_ > 0) return absl::FailedPreconditionError("a reservation is mapped once only");
    if (bytes > bytes_) {
      return absl::InvalidArgumentError(
          absl::StrCat("a reservation of ", bytes_, " bytes cannot map ", bytes));
    }
    counters_.allocations.fetch_add(1, std::memory_order_relaxed);
    const size_t wanted = *RoundUp(bytes, granularity_);  // at most what is reserved
    if (absl::Status status = CheckFree(context_, wanted, use_); !status.ok()) return status;
    if (absl::Status status = MapWhole(wanted, bytes); !status.ok()) return status;
    counters_.bytes[static_cast<int>(use_)].fetch_add(bytes, std::memory_order_relaxed);
    return absl::OkStatus();
  }

 private:
  absl::Status MapWhole(size_t wanted, size_t bytes) {
    const CUmemAllocationProp properties = PropertiesOf(context_);
    const CUresult created = calls_.create(&memory_, wanted, &properties, 0);
    if (created == CUDA_ERROR_OUT_OF_MEMORY) return Exhausted(context_, bytes, use_);
    absl::Status status = calls_.StatusOf("cuMemCreate", created);
    if (!status.ok()) return context_.Fail(status);
    status = calls_.StatusOf("cuMemMap", calls_.map(address_, wanted, 0, memory_, 0));
    if (!status.ok()) {
      calls_.release(memory_);
      return context_.Fail(status);
    }
    mapped_ = wanted;
    CUmemAccessDesc access = {};
    access.location = properties.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    status = calls_.StatusOf("cuMemSetAccess", calls_.set_access(address_, wanted, &access, 1));
    if (!status.ok()) {
      Unmap();
      return context_.Fail(status);
    }
    return context_.Check("cudaMemsetAsync", cudaMemsetAsync(data_, 0, wanted, context_.stream()));
  }

  void Unmap() {
    calls_.unmap(address_, mapped_);
    calls_.release(memory_);
    mapped_ = 0;
  }

  const CUdeviceptr address_;
  const size_t reserved_;
  const size_t granularity_;
  const MemoryUse use_;
  const DriverCalls calls_;
  CudaContext& context_;
  DeviceCounters& counters_;
  CUmemGenericAllocationHandle memory_ = 0;
  size_t mapped_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Reservation>> ReserveDevice(CudaContext& context, size_t bytes,
                                                           MemoryUse use,
                                                           DeviceCounters& counters) {
  if (absl::Status status = context.Enter(); !status.ok()) return status;
  const absl::StatusOr<DriverCalls> calls = FindDriverCalls(context);
  if (!calls.ok()) return calls.status();
  const CUmemAllocationProp properties = PropertiesOf(context);
  size_t granularity = 0;
  absl::Status status = calls->StatusOf(
      "cuMemGetAllocationGranularity",
      calls->granularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
  if (!status.ok()) return context.Fail(status);
  counters.allocations.fetch_add(1, std::memory_order_relaxed);
  const std::optional<size_t> reserved = RoundUp(bytes, granularity);
  if (!reserved) return Exhausted(context, bytes, use);
  CUdeviceptr address = 0;
  const CUresult result = calls->address_reserve(&address, *reserved, granularity, 0, 0);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return Exhausted(context, bytes, use);
  status = calls->StatusOf("cuMemAddressReserve", result);
  if (!status.ok()) return status;
  return std::make_unique<DeviceReservation>(address, bytes, *reserved, granularity, use, *calls,
                                             context, counters);
}

}  // namespace sirocco::cuda
