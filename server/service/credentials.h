// What guards the gRPC port: TLS, and bearer tokens. A call without a token that allows it ends
// before a byte of its message is read.
//
// The identity is asked for at each handshake, so one that was reloaded holds from the next
// connection on. gRPC's C++ interface offers that only for files that it watches by itself, without
// a word on what is wrong with them, and checks tokens only under TLS; its C interface offers both.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "server/metrics/metrics.h"
#include "server/security/security.h"

namespace sirocco {

// In the clear and for all, where there is neither TLS nor tokens. The result lives as long as the
// server that listens by it; `security` and `metrics` longer.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const Security& security,
                                                               Metrics& metrics);

}  // namespace sirocco
