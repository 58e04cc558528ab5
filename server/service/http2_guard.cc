#include "server/service/http2_guard.h"

#include <grpc/slice.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

// The functions of gRPC that are called here, by the names that the compiler gives them (Itanium
// C++ ABI: a member function takes its object first). BUILD.bazel has the same list.
// grpc_core::HPackParser, of which a connection has one and calls it from one thread at a time:
#define BEGIN_FRAME                                                            \
  "_ZN9grpc_core11HPackParser10BeginFrameEP19grpc_metadata_batchjNS0_8Boundar" \
  "yENS0_8PriorityENS0_7LogInfoE"
#define END_PARSER "_ZN9grpc_core11HPackParserD1Ev"
#define PARSE                                                                    \
  "_Z31grpc_chttp2_header_parser_parsePvP21grpc_chttp2_transportP18grpc_chttp2_" \
  "streamRK10grpc_slicei"
#define BEGIN_RESET                                                             \
  "_Z41grpc_chttp2_rst_stream_parser_begin_frameP29grpc_chttp2_rst_stream_pars" \
  "erjh"
#define STREAMS "_Z27grpc_chttp2_stream_map_sizeP22grpc_chttp2_stream_map"
// grpc_core::Arena, of which a server's call has one:
#define BEGIN_CALL                                                                \
  "_ZN9grpc_core5Arena15CreateWithAllocEmmPN17grpc_event_engine12experimental15M" \
  "emoryAllocatorE"
#define END_CALL "_ZN9grpc_core5Arena7DestroyEv"

namespace sirocco {

// Of the functions' types, so not without a name.
namespace http2_guard {

enum class Boundary : uint8_t { kNone, kEndOfHeaders, kEndOfStream };
struct LogInfo {
  uint32_t stream_id;
  uint8_t type;
  bool is_client;
};

// gRPC's own, and what is called instead. Before each frame of a header block: whether it is the
// last.
void RealBeginFrame(void* parser, void* metadata, uint32_t limit, Boundary boundary,
                    uint8_t priority, LogInfo info) __asm__("__real_" BEGIN_FRAME);
void BeginFrame(void* parser, void* metadata, uint32_t limit, Boundary boundary, uint8_t priority,
                LogInfo info) __asm__("__wrap_" BEGIN_FRAME);
// A part of that frame.
absl::Status RealParse(void* parser, void* connection, void* stream, const grpc_slice& slice,
                       int is_last) __asm__("__real_" PARSE);
absl::Status Parse(void* parser, void* connection, void* stream, const grpc_slice& slice,
                   int is_last) __asm__("__wrap_" PARSE);
// The connection goes.
void RealEndParser(void* parser) __asm__("__real_" END_PARSER);
void EndParser(void* parser) __asm__("__wrap_" END_PARSER);

// Before a RST_STREAM frame.
absl::Status RealBeginReset(void* parser, uint32_t length,
                            uint8_t flags) __asm__("__real_" BEGIN_RESET);
absl::Status BeginReset(void* parser, uint32_t length,
                        uint8_t flags) __asm__("__wrap_" BEGIN_RESET);
// Of a connection. A new stream is refused where there are as many as there may be; all else that
// asks wants to know of none, one or more.
size_t RealStreams(void* streams) __asm__("__real_" STREAMS);
size_t Streams(void* streams) __asm__("__wrap_" STREAMS);

std::pair<void*, void*> RealBeginCall(size_t initial, size_t more,
                                      void* memory) __asm__("__real_" BEGIN_CALL);
std::pair<void*, void*> BeginCall(size_t initial, size_t more,
                                  void* memory) __asm__("__wrap_" BEGIN_CALL);
size_t RealEndCall(void* arena) __asm__("__real_" END_CALL);
size_t EndCall(void* arena) __asm__("__wrap_" END_CALL);

}  // namespace http2_guard

namespace {

// The header blocks that did not end with their first frame, by parser. As long as there are only
// others, nothing is looked up.
class LongBlocks {
 public:
  // A frame; `last`: of its block. Whether it is the first of it. (Of a stream that it knows no
  // more gRPC never says that a frame is the last; the next block is then known by its stream.)
  bool Begin(void* parser, uint32_t stream, bool last) {
    if (last && count_.load(std::memory_order_relaxed) == 0) return true;
    Shard& shard = ShardOf(parser);
    const std::lock_guard lock(shard.mutex);
    const auto found = shard.blocks.find(parser);
    if (found == shard.blocks.end()) {
      if (last) return true;
      shard.blocks.emplace(parser, Block{stream, 1, false});
      ++count_;
      return true;
    }
    Block& block = found->second;
    const bool first = block.stream != stream;
    block = {stream, first ? 1 : block.frames + 1, last};
    return first;
  }

  // A part of the frame that has begun: whether the block may have that.
  bool Take(void* parser, bool frame_ends) {
    if (count_.load(std::memory_order_relaxed) == 0) return true;
    Shard& shard = ShardOf(parser);
    const std::lock_guard lock(shard.mutex);
    const auto found = shard.blocks.find(parser);
    if (found == shard.blocks.end()) return true;
    const Block block = found->second;
    if (block.ends && frame_ends) Erase(shard, parser);
    return block.frames <= kMaxHeaderFrames;
  }

  void Forget(void* parser) {
    if (count_.load(std::memory_order_relaxed) == 0) return;
    Shard& shard = ShardOf(parser);
    const std::lock_guard lock(shard.mutex);
    Erase(shard, parser);
  }

 private:
  struct Block {
    uint32_t stream;
    int frames;
    bool ends;  // with the frame that is being read
  };
  struct Shard {
    std::mutex mutex;
    std::unordered_map<void*, Block> blocks;
  };

  Shard& ShardOf(void* parser) {
    return shards_[reinterpret_cast<uintptr_t>(parser) / 4096 % shards_.size()];
  }
  void Erase(Shard& shard, void* parser) {
    if (shard.blocks.erase(parser) > 0) --count_;
  }

  std::array<Shard, 16> shards_;
  // Of all shards. A connection that has a block there sees 1 at least.
  std::atomic<int64_t> count_{0};
};

LongBlocks& Blocks() {
  static auto* const blocks = new LongBlocks();  // gRPC's threads may read until the process ends
  return *blocks;
}

std::atomic<uint32_t> max_metadata_bytes{std::numeric_limits<uint32_t>::max()};
std::atomic<size_t> max_streams{std::numeric_limits<size_t>::max() - kEarlyStreams};
std::atomic<int64_t> max_calls{std::numeric_limits<int64_t>::max()};
std::atomic<int64_t> calls{0};
std::atomic<int> refused_blocks{0}, refused_resets{0};

}  // namespace

namespace http2_guard {

void BeginFrame(void* parser, void* metadata, uint32_t limit, Boundary boundary, uint8_t priority,
                LogInfo info) {
  if (!info.is_client) {
    const bool first = Blocks().Begin(parser, info.stream_id, boundary != Boundary::kNone);
    const uint32_t most = max_metadata_bytes.load(std::memory_order_relaxed);
    limit = std::min(limit, first ? most : most / kLaterShare);
  }
  RealBeginFrame(parser, metadata, limit, boundary, priority, info);
}

absl::Status Parse(void* parser, void* connection, void* stream, const grpc_slice& slice,
                   int is_last) {
  if (!Blocks().Take(parser, is_last != 0)) {
    ++refused_blocks;
    return absl::ResourceExhaustedError(
        absl::StrCat("a header block of more than ", kMaxHeaderFrames, " frames"));
  }
  absl::Status status = RealParse(parser, connection, stream, slice, is_last);
  if (!status.ok()) ++refused_blocks;
  return status;
}

void EndParser(void* parser) {
  Blocks().Forget(parser);
  RealEndParser(parser);
}

absl::Status BeginReset(void* parser, uint32_t length, uint8_t flags) {
  if (calls.load(std::memory_order_relaxed) > max_calls.load(std::memory_order_relaxed) / 2) {
    ++refused_resets;
    return absl::ResourceExhaustedError("a stream was reset where there are too many calls");
  }
  return RealBeginReset(parser, length, flags);
}

size_t Streams(void* streams) {
  const size_t count = RealStreams(streams);
  if (count < kFewStreams) return count;
  const bool too_many =
      count >= max_streams.load(std::memory_order_relaxed) + kEarlyStreams ||
      calls.load(std::memory_order_relaxed) >= max_calls.load(std::memory_order_relaxed);
  return too_many ? std::numeric_limits<size_t>::max() : count;
}

std::pair<void*, void*> BeginCall(size_t initial, size_t more, void* memory) {
  calls.fetch_add(1, std::memory_order_relaxed);
  return RealBeginCall(initial, more, memory);
}

size_t EndCall(void* arena) {
  calls.fetch_sub(1, std::memory_order_relaxed);
  return RealEndCall(arena);
}

}  // namespace http2_guard

void SetHttp2Bounds(const Http2Bounds& bounds) {
  max_metadata_bytes = bounds.metadata_bytes;
  max_streams = bounds.streams;
  max_calls = bounds.calls;
}

int64_t HeldCalls() { return calls; }
int RefusedHeaderBlocks() { return refused_blocks; }
int RefusedResets() { return refused_resets; }

}  // namespace sirocco
