// Bounds that gRPC 1.51 lacks, of what a connection makes this process hold before any of our code
// hears of it:
//
// - It keeps a header block (HEADERS and its CONTINUATION frames) until the block has ended, and
//   looks at its size frame by frame: one that never ends grows until memory gives out
//   (CVE-2023-33953).
// - What a client may send, in metadata and streams, holds from when the client says that it has
//   read so; one that never does is not bound by it.
// - A stream that the client resets makes room for the next at once, its call ends later: with a
//   client that only begins and resets, calls grow without bound (CVE-2023-44487).
//
// No setting bounds these, so the linker puts the functions of this library between gRPC's objects
// (--wrap, in BUILD.bazel). What is beyond is an error of gRPC's parser, which closes the
// connection. A client's header blocks are left alone. Programs that link gRPC's archives have
// this; one that loads its shared library (--config=shared) does not.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sirocco {

// A header block has so many frames at most, of 16 KiB: a client that fills them needs one for the
// most metadata that gRPC takes of a call.
inline constexpr int kMaxHeaderFrames = 2;
// A later frame's fields have this part of what the first may: gRPC counts each frame by itself,
// and what is left to them is what did not fit into 16 KiB.
inline constexpr uint32_t kLaterShare = 4;
// Streams on top of those of a connection that begin before the client has read how many there may
// be.
inline constexpr size_t kEarlyStreams = 100;
// Where calls are too many, connections with so many streams or more begin no further ones.
inline constexpr size_t kFewStreams = 64;

struct Http2Bounds {
  uint32_t metadata_bytes;  // of a block's first fields, as HTTP/2 counts them (with 32 a field)
  size_t streams;           // of a connection
  // Of all connections, from the first byte of a call until its object goes. From half as many on,
  // who resets a stream loses the connection.
  int64_t calls;
};

// Of this process's servers from now on; before, only header blocks are bounded.
void SetHttp2Bounds(const Http2Bounds& bounds);

// Calls that gRPC holds, and connections that were closed for a header block or a reset. Any
// thread.
int64_t HeldCalls();
int RefusedHeaderBlocks();
int RefusedResets();

}  // namespace sirocco
