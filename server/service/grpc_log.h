// gRPC's own messages as lines of our log; and what it tells nowhere else: why it cannot
// listen, that it has stopped listening, and that a handshake has failed.
#pragma once

#include <string>

namespace sirocco {

// From the first call on gRPC's warnings and errors go through Log. Any thread, any number of
// times.
void RouteGrpcLog();

// Keeps gRPC's messages back, to tell a start's failure in one line. One at a time.
class GrpcStartLog {
 public:
  GrpcStartLog();
  ~GrpcStartLog();

  std::string Reason() const;
};

// How often a listener of this process could not accept a connection: gRPC 1.51 closes it then, and
// no other connection ever comes in. Any thread.
int FailedAccepts();
// How many TLS handshakes have failed. Any thread.
int FailedHandshakes();

}  // namespace sirocco
