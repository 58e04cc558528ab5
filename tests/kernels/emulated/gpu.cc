#include "tests/kernels/emulated/gpu.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
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

constinit thread_local uint3 thread_index, block_index;
constinit thread_local dim3 grid_size;

namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 64 * 1024;  // of a fiber
// Dynamic shared memory begins at an address that is no better aligned than promised, and nobody
// writes beyond it.
constexpr size_t kBefore = 128, kBehind = 1024;

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "emulated GPU: block %u,%u,%u, thread %u: %s\n", block_index.x,
               block_index.y, block_index.z, thread_index.x, what);
  std::abort();
}

std::mt19937 order;

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

// What a fiber has others do for it.
struct Groups {
  std::vector<std::function<void()>> open;
  std::deque<std::vector<std::function<void()>>> committed;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  std::function<bool()> ready;  // empty: it is
  bool ended = false;
  bool waited = false;  // for the kernel before
  uint64_t cluster_round = 0;
  Groups groups[2];  // of Later
};

struct Block;

struct Cluster {
  std::mutex running;  // of one block at a time
  std::condition_variable moved;
  Meeting meeting;
  int threads = 0;
  uint64_t steps = 0;  // that any of the blocks has made
  size_t shared_bytes = 0;
  std::vector<unsigned char*> shared;
  std::vector<Block*> blocks;  // null: not begun, or ended
  unsigned begun = 0;
};

struct Warp {
  Meeting meeting;
  size_t bytes = 0;  // that each lane gives
  alignas(16) unsigned char values[2][kWarp * kWarp];
};

struct Block {
  Cluster* cluster;
  unsigned threads;
  const std::function<void()>* kernel;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  ucontext_t scheduler;
  Fiber* own = nullptr;  // that runs
  std::map<int, Meeting> named;
  std::map<uint64_t*, Phases> phases;
  std::list<std::function<void()>> copies;
  uint64_t stuck = 0;  // since this step of the cluster

  Block(Cluster* of, unsigned count, const std::function<void()>* runs)
      : cluster(of), threads(count), kernel(runs), fibers(count), warps(count / kWarp) {}
};
thread_local Block* block = nullptr;

// ---- Memory that kernels write -----------------------------------------------------------------

// Closed while a fiber runs that has not waited for the kernel before: whatever it touches faults.
struct Memory {
  static constexpr size_t kMost = size_t{1} << 32;  // reserved: there when it is touched
  unsigned char* data = nullptr;
  size_t used = 0;
  bool open = true;

  void Open(bool opens) {
    if (opens == open || used == 0) return;
    open = opens;
    if (mprotect(data, used, opens ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) Fail("mprotect");
  }
  bool Has(const void* at) const { return static_cast<const unsigned char*>(at) - data < used; }
} memory;

constexpr char kTooEarly[] = "reads or writes what the kernel before may still write or read";

void OnFault(int number, siginfo_t* info, void*) {
  if (block != nullptr && memory.Has(info->si_addr)) Fail(kTooEarly);
  signal(number, SIG_DFL);  // which then gets it
}

// ---- Fibers ------------------------------------------------------------------------------------

void Wait(std::function<bool()> ready) {
  block->own->ready = std::move(ready);
  swapcontext(&block->own->context, &block->scheduler);
}

void Main() {
  (*block->kernel)();
  for (const Groups& groups : block->own->groups) {
    if (!groups.open.empty()) Fail("ends before its copies or products");
    for (const auto& group : groups.committed) {
      if (!group.empty()) Fail("ends before its copies or products");
    }
  }
  block->own->ended = true;
  swapcontext(&block->own->context, &block->scheduler);
}

void Prepare(Fiber& fiber) {
  fiber.stack.reset(new char[kStack]);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  makecontext(&fiber.context, Main, 0);
}

// Whether no block of the cluster can go on: each has found so since the last step.
bool IsStuck(const Cluster& cluster) {
  return cluster.begun == cluster.blocks.size() &&
         std::ranges::all_of(cluster.blocks, [&](const Block* of) {
           return of == nullptr || of->stuck == cluster.steps;
         });
}

void MakeACopy() {
  auto copy = block->copies.begin();
  std::advance(copy, order() % block->copies.size());
  memory.Open(true);
  (*copy)();
  block->copies.erase(copy);
  ++block->cluster->steps;
}

// Until all have ended. Where all wait for other blocks, these run.
void RunBlock(std::unique_lock<std::mutex>& lock) {
  Cluster& cluster = *block->cluster;
  std::vector<Fiber*> ready;
  for (;;) {
    if (!block->copies.empty() && order() % 4 == 0) MakeACopy();
    ready.clear();
    bool all_ended = true;
    for (Fiber& fiber : block->fibers) {
      if (fiber.ended) continue;
      all_ended = false;
      if (!fiber.ready || fiber.ready()) ready.push_back(&fiber);
    }
    if (all_ended) break;
    if (ready.empty()) {
      if (!block->copies.empty()) continue;
      block->stuck = cluster.steps;
      if (IsStuck(cluster)) Fail("nobody can go on");
      cluster.moved.notify_all();
      cluster.moved.wait(lock);
      continue;
    }
    // Some at once: looking for them is what takes time. Those that have waited for the kernel
    // before and those that have not one after the other, since opening memory takes time, too.
    std::shuffle(ready.begin(), ready.end(), order);
    ready.resize(1 + order() % ready.size());
    std::partition(ready.begin(), ready.end(),
                   [first = ready[0]->waited](const Fiber* of) { return of->waited == first; });
    for (Fiber* fiber : ready) {
      if (fiber->ready && !fiber->ready()) continue;  // any more
      fiber->ready = nullptr;
      block->own = fiber;
      thread_index.x = static_cast<unsigned>(fiber - block->fibers.data());
      memory.Open(fiber->waited);
      swapcontext(&block->scheduler, &fiber->context);
    }
    ++cluster.steps;
  }
  if (!block->copies.empty()) Fail("the block ends before its copies");
  cluster.moved.notify_all();
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

void* AllocateMemory(size_t bytes) {
  constexpr size_t kAlignment = 4096;  // of a page
  if (memory.data == nullptr) {
    void* const data = mmap(nullptr, Memory::kMost, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) Fail("mmap");
    memory.data = static_cast<unsigned char*>(data);
    struct sigaction action = {};
    action.sa_sigaction = OnFault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
  }
  void* const at = memory.data + memory.used;
  memory.used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (memory.used > Memory::kMost) Fail("out of memory");
  return at;
}
void FreeMemory() {
  if (memory.used > 0) madvise(memory.data, memory.used, MADV_DONTNEED);
  memory.used = 0;
}

void RunGrid(dim3 grid, unsigned threads, unsigned cluster_size, size_t shared_bytes,
             const std::function<void()>& kernel) {
  if (threads % kWarp != 0) Fail("a warp that is not whole");
  const size_t bytes = kBefore + shared_bytes + kBehind;
  for (unsigned i = 0; i < grid.x * grid.y * grid.z; i += cluster_size) {
    Cluster cluster;
    cluster.threads = static_cast<int>(cluster_size * threads);
    cluster.shared_bytes = shared_bytes;
    std::vector<std::unique_ptr<unsigned char[]>> memories;
    for (unsigned rank = 0; rank < cluster_size; ++rank) {
      memories.emplace_back(new unsigned char[bytes + 1024]);
      const uintptr_t at = reinterpret_cast<uintptr_t>(memories.back().get());
      cluster.shared.push_back(reinterpret_cast<unsigned char*>((at + 1023) / 1024 * 1024));
      std::memset(cluster.shared.back(), 0xff, bytes);  // NaN
    }
    cluster.blocks.resize(cluster_size);
    std::vector<std::thread> hosts;
    for (unsigned rank = 0; rank < cluster_size; ++rank) {
      hosts.emplace_back([&, rank] {
        std::unique_lock<std::mutex> lock(cluster.running);
        block_index = {i % grid.x + rank, i / grid.x % grid.y, i / grid.x / grid.y};
        grid_size = grid;
        Block own(&cluster, threads, &kernel);
        block = &own;
        cluster.blocks[rank] = block;
        ++cluster.begun;
        std::ranges::for_each(own.fibers, Prepare);
        RunBlock(lock);
        cluster.blocks[rank] = nullptr;
        if (std::ranges::none_of(own.fibers, &Fiber::waited)) {
          Fail("a block that waits for no kernel");
        }
        unsigned char* const shared = cluster.shared[rank];
        const auto untouched = [](unsigned char x) { return x == 0xff; };
        if (!std::all_of(shared, shared + kBefore, untouched) ||
            !std::all_of(shared + bytes - kBehind, shared + bytes, untouched)) {
          Fail("writes outside of its shared memory");
        }
        // Whoever reads it now reads what another block has.
        std::memset(shared, 0xff, bytes);
      });
    }
    for (std::thread& host : hosts) host.join();
  }
  memory.Open(true);
}

unsigned char* Shared() {
  return block->cluster->shared[block_index.x % block->cluster->shared.size()] + kBefore;
}
uint32_t SharedAddress(const void* at) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(at) - (Shared() - kBefore));
}
unsigned char* SharedAt(uint32_t address, size_t bytes) {
  if (address % bytes != 0) Fail("an address of shared memory is not aligned");
  if (address < kBefore || address + bytes > kBefore + block->cluster->shared_bytes) {
    Fail("an address outside of its shared memory");
  }
  return Shared() - kBefore + address;
}
void* OfBlock(void* own, int rank) {
  if (block->cluster->blocks[rank] == nullptr) Fail("reaches for a block that does not run");
  return block->cluster->shared[rank] + SharedAddress(own);
}
void StoreToBlock(const void* value, size_t bytes, void* own, uint64_t* own_barrier, int rank) {
  void* const to = OfBlock(own, rank);
  Block* const other = block->cluster->blocks[rank];
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
void WaitForKernelBefore() {
  if (block->own->waited) return;
  block->own->waited = true;
  Wait(nullptr);
}

void Barrier(int number, int threads, bool waits) {
  Meet(block->named[number], number == 0 ? static_cast<int>(block->threads) : threads, waits);
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
const void* Exchange(uint32_t lanes, const void* own, size_t bytes) {
  if (lanes != 0xffffffffu) Fail("an exchange among a part of a warp");
  Warp& warp = block->warps[thread_index.x / kWarp];
  if (warp.meeting.arrived == 0) warp.bytes = bytes;
  if (bytes != warp.bytes) Fail("lanes of a warp at different instructions");
  unsigned char* const values = warp.values[warp.meeting.round % 2];
  std::copy_n(static_cast<const unsigned char*>(own), bytes,
              values + thread_index.x % kWarp * bytes);
  Meet(warp.meeting, kWarp, true);
  return values;
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

void CopyBox(void* to, const CUtensorMap& map, int column, int row, uint64_t* barrier) {
  Tensor tensor;
  std::memcpy(&tensor, &map, sizeof(tensor));
  if (reinterpret_cast<uintptr_t>(to) % 1024 != 0) Fail("a box is not aligned");
  if (!block->own->waited && memory.Has(tensor.data)) Fail(kTooEarly);
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
void CopyBytes(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  if (bytes % 16 != 0 || reinterpret_cast<uintptr_t>(to) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    Fail("a copy is not aligned");
  }
  if (!block->own->waited && memory.Has(from)) Fail(kTooEarly);
  Phases* const phases = &block->phases.at(barrier);
  void* const there = SharedAt(SharedAddress(to), 16);
  SharedAt(SharedAddress(to) + bytes - 16, 16);
  block->copies.push_back([=] {
    std::memcpy(there, from, bytes);
    phases->bytes -= bytes;
    phases->EndIfDone();
  });
}

void Do(Later kind, std::function<void()> work) {
  block->own->groups[static_cast<int>(kind)].open.push_back(std::move(work));
}
void CopyLater16(uint32_t to, const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) Fail("a copy is not aligned");
  if (!block->own->waited && memory.Has(from)) Fail(kTooEarly);
  Do(Later::kCopies, [to = SharedAt(to, 16), from] { std::memcpy(to, from, 16); });
}
void CommitGroup(Later kind) {
  Groups& groups = block->own->groups[static_cast<int>(kind)];
  groups.committed.push_back(std::move(groups.open));
  groups.open.clear();
}
void WaitGroups(Later kind, int pending) {
  auto& groups = block->own->groups[static_cast<int>(kind)].committed;
  const bool some = groups.size() > static_cast<size_t>(pending);
  for (; groups.size() > static_cast<size_t>(pending); groups.pop_front()) {
    for (const std::function<void()>& work : groups.front()) work();
  }
  // A warp's threads go on together: what one of them tells others is true of all.
  if (kind == Later::kProducts && some) Exchange(0xffffffffu, nullptr, 0);
}

}  // namespace sirocco::emulated

namespace {

// Maps of what panels are: rows of 128 bytes.
CUresult Encode(CUtensorMap* map, CUtensorMapDataType, cuuint32_t, void* data,
                const cuuint64_t* size, const cuuint64_t*, const cuuint32_t* box, const cuuint32_t*,
                CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                CUtensorMapFloatOOBfill) {
  if (reinterpret_cast<uintptr_t>(data) % 16 != 0 || size[0] % 8 != 0 || box[0] * 2 != 128 ||
      box[1] > 256) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const sirocco::emulated::Tensor tensor = {static_cast<const uint16_t*>(data), size[0], size[1],
                                            box[0], box[1]};
  std::memcpy(map, &tensor, sizeof(tensor));
  return CUDA_SUCCESS;
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
