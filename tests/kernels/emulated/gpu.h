// A GPU for one kernel file, on the host: with the headers in kernels/cuda beside this, which stand
// for those of the same names that are instructions, kernels compile and run as they are. What it
// is for is what a compiler cannot see: indices, barriers, phases, operands, and who may read what
// before the kernel before has ended.
//
// A block is a thread of the host, of which one runs at a time; a thread of the block is a fiber.
// At every wait another fiber goes on, chosen by the seed. Copies of the tensor copy engine, and
// stores to other blocks, are made at any time until their barrier is waited for; what a thread
// itself waits for, copies by groups and products of the matrix units, as late as it may be. Shared
// memory begins as NaN.
//
// It stops the program (std::abort) with a line on stderr where the hardware would hang, fault, or
// read what is not there yet (emulated_gpu_test.cc). What it does not show: clusters run one after
// the other, so that what they hand on through counters in memory is always there; `__shared__`
// variables begin as zeros; and memory has one order.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>

namespace sirocco::emulated {

// ---- Of the host -------------------------------------------------------------------------------

// Runs all blocks, a cluster along x at a time.
void RunGrid(dim3 grid, unsigned threads, unsigned cluster, size_t shared_bytes,
             const std::function<void()>& kernel);

// The order that fibers run in.
void Seed(uint32_t seed);

// Memory that kernels write, zeros, aligned to a page: a thread may touch it only after its
// WaitForKernelBefore. It is there until FreeMemory, which frees all of it.
void* AllocateMemory(size_t bytes);
void FreeMemory();

// ---- Of the fiber that runs --------------------------------------------------------------------

extern constinit thread_local uint3 thread_index, block_index;
extern constinit thread_local dim3 grid_size;

void WaitForKernelBefore();

// The block's dynamic shared memory.
unsigned char* Shared();
// As instructions have addresses of it; back, of `bytes` that are aligned to as many.
uint32_t SharedAddress(const void* at);
unsigned char* SharedAt(uint32_t address, size_t bytes);
void* OfBlock(void* own, int rank);  // the same place of another block's memory
// There, at any time until the barrier's phase there has ended, of which they are `bytes`.
void StoreToBlock(const void* value, size_t bytes, void* own, uint64_t* own_barrier, int rank);

// Barriers of `threads` by number, or of all the block's (0); who only arrives does not wait.
void Barrier(int number, int threads, bool waits);
void ClusterArrive();
void ClusterWait();
// Of all lanes of a warp, which `lanes` must be: what each of them gives, `bytes` apart. It is
// there until the lane's exchange after the next.
const void* Exchange(uint32_t lanes, const void* own, size_t bytes);
template <typename T>
const T* Exchange(uint32_t lanes, const T& own) {
  static_assert(sizeof(T) <= 32 && std::is_trivially_copyable_v<T>);
  return static_cast<const T*>(Exchange(lanes, &own, sizeof(T)));
}

// Barriers that count arrivals, and bytes.
void InitCount(uint64_t* barrier, int arrivals);
void Arrive(uint64_t* barrier, uint32_t bytes);
void WaitPhase(uint64_t* barrier, uint32_t parity);
void CopyBox(void* to, const CUtensorMap& map, int column, int row, uint64_t* barrier);
void CopyBytes(void* to, const void* from, uint32_t bytes, uint64_t* barrier);

// Work that is done when its group is waited for: copies, and products of the matrix units.
enum class Later { kCopies, kProducts };
void Do(Later kind, std::function<void()> work);
void CopyLater16(uint32_t to, const void* from);
void CommitGroup(Later kind);
void WaitGroups(Later kind, int pending);  // until at most so many are under way

}  // namespace sirocco::emulated
