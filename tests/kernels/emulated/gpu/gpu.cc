#include "tests/kernels/emulated/gpu/gpu.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace sirocco::emulated {

thread_local Index thread_index, block_index, grid_size;

namespace {

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "emulated GPU: block %u, thread %u: %s\n", block_index.x, thread_index.x,
               what);
  std::abort();
}

std::mt19937 order;
std::vector<std::pair<const char*, size_t>> writable;

struct Tensor {
  const uint16_t* data;
  uint64_t columns, rows;
  uint32_t box_columns, box_rows;
};

// Who waits until a count is full; then all go on and the next round begins.
struct Meeting {
  int arrived = 0;
  uint64_t round = 0;
};
struct Phases {
  int arrivals = 0, pending = 0;
  int64_t bytes = 0;
  uint32_t parity = 0;

  void EndIfDone() {
    if (pending > 0 || bytes != 0) return;
    pending = arrivals;
    parity ^= 1;
  }
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  std::function<bool()> ready;  // empty: it is
  bool ended = false;
  bool waited = false;  // for the kernel before
  uint64_t cluster_round = 0;
  std::vector<std::function<void()>> products;
  std::vector<size_t> groups;  // products at the ends of groups
};

struct Block;

struct Cluster {
  std::mutex running;  // of one block at a time
  std::condition_variable moved;
  Meeting meeting;
  int threads = 0;
  std::vector<unsigned char*> shared;
  std::vector<Block*> blocks;  // null: not begun, or ended
};

struct Block {
  Cluster* cluster;
  unsigned threads;
  std::vector<Fiber> fibers;
  ucontext_t scheduler;
  Fiber* own = nullptr;  // that runs
  std::map<int, Meeting> named;
  std::map<std::pair<int, uint32_t>, Meeting> warps;
  std::map<uint64_t*, Phases> phases;
  std::vector<std::array<uint32_t, 32>> lanes;
  std::list<std::function<void()>> copies;
  const std::function<void()>* kernel;
};
thread_local Block* block = nullptr;

void Wait(std::function<bool()> ready) {
  block->own->ready = std::move(ready);
  swapcontext(&block->own->context, &block->scheduler);
}

void Main() {
  (*block->kernel)();
  if (!block->own->products.empty()) Fail("ends before its products");
  block->own->ended = true;
  swapcontext(&block->own->context, &block->scheduler);
}

// Until all have ended. Where all wait for other blocks, these run.
void RunBlock(std::unique_lock<std::mutex>& lock) {
  for (;;) {
    if (!block->copies.empty() && order() % 4 == 0) {
      auto copy = block->copies.begin();
      std::advance(copy, order() % block->copies.size());
      (*copy)();
      block->copies.erase(copy);
    }
    std::vector<Fiber*> ready;
    bool all_ended = true;
    for (Fiber& fiber : block->fibers) {
      if (fiber.ended) continue;
      all_ended = false;
      if (!fiber.ready || fiber.ready()) ready.push_back(&fiber);
    }
    if (all_ended) break;
    if (ready.empty()) {
      if (!block->copies.empty()) continue;
      block->cluster->moved.notify_all();
      if (block->cluster->moved.wait_for(lock, std::chrono::seconds(20)) ==
          std::cv_status::timeout) {
        Fail("nobody can go on");
      }
      continue;
    }
    // Some at once: looking for them is what takes time.
    std::shuffle(ready.begin(), ready.end(), order);
    ready.resize(1 + order() % ready.size());
    for (Fiber* fiber : ready) {
      if (fiber->ready && !fiber->ready()) continue;
      fiber->ready = nullptr;
      block->own = fiber;
      thread_index.x = static_cast<unsigned>(fiber - block->fibers.data());
      swapcontext(&block->scheduler, &fiber->context);
    }
  }
  if (!block->copies.empty()) Fail("the block ends before its copies");
  block->cluster->moved.notify_all();
}

void Meet(Meeting& meeting, int threads, bool waits) {
  const uint64_t round = meeting.round;
  if (++meeting.arrived == threads) {
    meeting.arrived = 0;
    ++meeting.round;
    return;
  }
  if (waits) Wait([&meeting, round] { return meeting.round != round; });
}

}  // namespace

void Seed(uint32_t seed) { order.seed(seed); }
void Mutable(const void* from, size_t bytes) {
  writable.emplace_back(static_cast<const char*>(from), bytes);
}
void ForgetMutable() { writable.clear(); }

void RunGrid(unsigned blocks, unsigned threads, unsigned cluster_size, size_t shared_bytes,
             const std::function<void()>& kernel) {
  constexpr size_t kStack = 64 * 1024;
  for (unsigned first = 0; first < blocks; first += cluster_size) {
    Cluster cluster;
    cluster.threads = static_cast<int>(cluster_size * threads);
    std::vector<std::unique_ptr<unsigned char[]>> memory;
    for (unsigned rank = 0; rank < cluster_size; ++rank) {
      // Of unlike alignment, and not zero.
      memory.emplace_back(new unsigned char[shared_bytes + 1024]);
      std::memset(memory.back().get(), 0xff, shared_bytes + 1024);
      const uintptr_t at = reinterpret_cast<uintptr_t>(memory.back().get());
      cluster.shared.push_back(reinterpret_cast<unsigned char*>((at + 1023) / 1024 * 1024));
    }
    cluster.blocks.resize(cluster_size);
    std::vector<std::thread> hosts;
    for (unsigned rank = 0; rank < cluster_size; ++rank) {
      hosts.emplace_back([&, rank] {
        std::unique_lock<std::mutex> lock(cluster.running);
        block_index.x = first + rank;
        grid_size.x = blocks;
        Block own = {&cluster, threads, std::vector<Fiber>(threads),
                     {},       nullptr, {},
                     {},       {},      std::vector<std::array<uint32_t, 32>>((threads + 31) / 32),
                     {},       &kernel};
        block = &own;
        cluster.blocks[rank] = block;
        for (Fiber& fiber : own.fibers) {
          fiber.stack.reset(new char[kStack]);
          getcontext(&fiber.context);
          fiber.context.uc_stack.ss_sp = fiber.stack.get();
          fiber.context.uc_stack.ss_size = kStack;
          makecontext(&fiber.context, Main, 0);
        }
        RunBlock(lock);
        cluster.blocks[rank] = nullptr;
        bool waited = false;
        for (const Fiber& fiber : own.fibers) waited = waited || fiber.waited;
        if (!waited) Fail("a block that waits for no kernel");
        // Whoever reads it now reads what another block has.
        std::memset(cluster.shared[rank], 0xff, shared_bytes);
      });
    }
    for (std::thread& host : hosts) host.join();
  }
}

unsigned char* Shared() {
  return block->cluster->shared[block_index.x % block->cluster->shared.size()];
}
void* OfBlock(void* own, int rank) {
  const ptrdiff_t at = static_cast<unsigned char*>(own) - Shared();
  return block->cluster->shared[rank] + at;
}
void StoreToBlock(const void* value, size_t bytes, void* own, uint64_t* own_barrier, int rank) {
  Block* const other = block->cluster->blocks[rank];
  if (other == nullptr) Fail("stores to a block that does not run");
  void* const to = OfBlock(own, rank);
  const auto at = other->phases.find(static_cast<uint64_t*>(OfBlock(own_barrier, rank)));
  if (at == other->phases.end()) Fail("stores to a block whose barrier is not there yet");
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0) Fail("a store is not aligned");
  Phases* const phases = &at->second;
  std::vector<char> bits(static_cast<const char*>(value), static_cast<const char*>(value) + bytes);
  other->copies.push_back([=, bits = std::move(bits)] {
    std::memcpy(to, bits.data(), bits.size());
    phases->bytes -= static_cast<int64_t>(bits.size());
    phases->EndIfDone();
  });
  block->cluster->moved.notify_all();
}
void WaitForKernelBefore() { block->own->waited = true; }
void CheckAccess(const void* at, size_t bytes, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(at) % alignment != 0) Fail("an access is not aligned");
  if (block->own->waited) return;
  for (const auto& [from, size] : writable) {
    if (static_cast<const char*>(at) + bytes > from && static_cast<const char*>(at) < from + size) {
      Fail("reads or writes what the kernel before may still write or read");
    }
  }
}

void Barrier(int number, int threads, bool waits) {
  Meet(block->named[number], number == 0 ? static_cast<int>(block->threads) : threads, waits);
}
void WarpBarrier(uint32_t lanes) {
  Meet(block->warps[{static_cast<int>(thread_index.x / 32), lanes}], __builtin_popcount(lanes),
       true);
}
void ClusterArrive() {
  Meeting& meeting = block->cluster->meeting;
  block->own->cluster_round = meeting.round;
  if (++meeting.arrived < block->cluster->threads) return;
  meeting.arrived = 0;
  ++meeting.round;
  block->cluster->moved.notify_all();
}
void ClusterWait() {
  Meeting* const meeting = &block->cluster->meeting;
  Wait([meeting, round = block->own->cluster_round] { return meeting->round != round; });
}
uint32_t Exchange(uint32_t lanes, uint32_t value, int with) {
  const unsigned lane = thread_index.x % 32;
  auto& values = block->lanes[thread_index.x / 32];
  if ((lanes >> (lane ^ with) & 1) == 0) Fail("a shuffle with a lane that takes no part");
  values[lane] = value;
  WarpBarrier(lanes);
  const uint32_t other = values[lane ^ with];
  WarpBarrier(lanes);
  return other;
}

void InitCount(uint64_t* barrier, int arrivals) { block->phases[barrier] = {arrivals, arrivals}; }
void Arrive(uint64_t* barrier, uint32_t bytes) {
  Phases& phases = block->phases.at(barrier);
  if (phases.pending == 0) Fail("more arrivals than a phase has");
  phases.bytes += bytes;
  --phases.pending;
  phases.EndIfDone();
}
void WaitPhase(uint64_t* barrier, uint32_t parity) {
  const Phases* const phases = &block->phases.at(barrier);
  Wait([=] { return phases->parity != parity; });
}

void Copy(void* to, const CUtensorMap& map, int column, int row, uint64_t* barrier) {
  Tensor tensor;
  std::memcpy(&tensor, &map, sizeof(tensor));
  if (reinterpret_cast<uintptr_t>(to) % 1024 != 0) Fail("a box is not aligned");
  CheckAccess(tensor.data, tensor.rows * tensor.columns * 2, 16);
  Phases* const phases = &block->phases.at(barrier);
  const uintptr_t base = reinterpret_cast<uintptr_t>(to);
  block->copies.push_back([=] {
    for (uint32_t r = 0; r < tensor.box_rows; ++r) {
      for (uint32_t c = 0; c < tensor.box_columns; ++c) {
        const uint64_t y = row + r, x = column + c;
        uintptr_t at = base + r * 128 + c * 2;
        at ^= (at >> 7 & 7) << 4;
        *reinterpret_cast<uint16_t*>(at) =
            y < tensor.rows && x < tensor.columns ? tensor.data[y * tensor.columns + x] : 0;
      }
    }
    phases->bytes -= tensor.box_rows * tensor.box_columns * 2;
    phases->EndIfDone();
  });
}

void LaterProduct(std::function<void()> product) {
  block->own->products.push_back(std::move(product));
}
void CommitGroup() { block->own->groups.push_back(block->own->products.size()); }
void WaitGroups(int pending) {
  Fiber& own = *block->own;
  if (own.groups.size() <= static_cast<size_t>(pending)) return;
  const size_t done = own.groups.size() - pending;
  const size_t products = own.groups[done - 1];
  for (size_t i = 0; i < products; ++i) own.products[i]();
  own.products.erase(own.products.begin(), own.products.begin() + products);
  own.groups.erase(own.groups.begin(), own.groups.begin() + done);
  for (size_t& end : own.groups) end -= products;
  // A warp's threads go on together: what one of them tells others is true of all.
  WarpBarrier(0xffffffffu);
}

CUresult EncodeTensor(CUtensorMap* map, const void* data, uint64_t columns, uint64_t rows,
                      uint32_t box_columns, uint32_t box_rows) {
  if (reinterpret_cast<uintptr_t>(data) % 16 != 0 || columns % 8 != 0 || box_columns * 2 != 128 ||
      box_rows > 256) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Tensor tensor = {static_cast<const uint16_t*>(data), columns, rows, box_columns, box_rows};
  std::memcpy(map, &tensor, sizeof(tensor));
  return CUDA_SUCCESS;
}

}  // namespace sirocco::emulated

namespace {

CUresult Encode(CUtensorMap* map, CUtensorMapDataType, cuuint32_t, void* data,
                const cuuint64_t* size, const cuuint64_t*, const cuuint32_t* box, const cuuint32_t*,
                CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                CUtensorMapFloatOOBfill) {
  return sirocco::emulated::EncodeTensor(map, data, size[0], size[1], box[0], box[1]);
}

}  // namespace

// The only function of the runtime that panels call themselves.
extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned,
                                                        unsigned long long,
                                                        cudaDriverEntryPointQueryResult* result) {
  *function = reinterpret_cast<void*>(&Encode);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
