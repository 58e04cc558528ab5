// A GPU for one kernel file, on the host: enough of CUDA C++ and of the helpers of ptx.cuh,
// wgmma.cuh and panel_ptx.cuh that panel_product.cu compiles and runs as it is. What it is for is
// what a compiler cannot see: indices, barriers, phases, and who may read what before the kernel
// before has ended.
//
// A block is a thread of the host, of which one runs at a time; a thread of the block is a fiber.
// At every wait another fiber goes on, chosen by the seed; copies of the tensor copy engine are
// made at any time until their barrier is waited for, and products of the matrix units as late as
// they may be.
//
// It stops the program (std::abort) with a line on stderr where the hardware would hang, fault, or
// read what is not there yet.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

namespace sirocco::emulated {

struct Index {
  unsigned x = 0;
};
// Of the fiber that runs.
extern thread_local Index thread_index, block_index, grid_size;

// Runs all blocks, a cluster at a time.
void RunGrid(unsigned blocks, unsigned threads, unsigned cluster, size_t shared_bytes,
             const std::function<void()>& kernel);

// The order that fibers run in.
void Seed(uint32_t seed);
// Memory that kernels write: nobody may touch it before its WaitForDependency.
void Mutable(const void* from, size_t bytes);
void ForgetMutable();

// ---- Of a fiber ---------------------------------------------------------------------------------
unsigned char* Shared();
void* OfBlock(void* own, int rank);  // the same place of another block's memory
// There, at any time until the barrier's phase there has ended, of which they are `bytes`.
void StoreToBlock(const void* value, size_t bytes, void* own, uint64_t* own_barrier, int rank);
void WaitForKernelBefore();
void CheckAccess(const void* at, size_t bytes, size_t alignment);
// Barriers of `threads` by number; who only arrives does not wait.
void Barrier(int number, int threads, bool waits);
void WarpBarrier(uint32_t lanes);
void ClusterArrive();
void ClusterWait();
uint32_t Exchange(uint32_t lanes, uint32_t value, int with);  // lane ^ with

void InitCount(uint64_t* barrier, int arrivals);
void Arrive(uint64_t* barrier, uint32_t bytes);
void WaitPhase(uint64_t* barrier, uint32_t parity);
void Copy(void* to, const CUtensorMap& map, int column, int row, uint64_t* barrier);
void LaterProduct(std::function<void()> product);
void CommitGroup();
void WaitGroups(int pending);

CUresult EncodeTensor(CUtensorMap* map, const void* data, uint64_t columns, uint64_t rows,
                      uint32_t box_columns, uint32_t box_rows);

}  // namespace sirocco::emulated

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __shared__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local
#define threadIdx sirocco::emulated::thread_index
#define blockIdx sirocco::emulated::block_index
#define gridDim sirocco::emulated::grid_size
