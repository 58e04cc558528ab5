// The answer to a beam search over the fake model by its definition: beams as whole lists of
// tokens, all continuations looked at. Shares no code with the engine.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "tests/engine/simulation.h"

namespace sirocco {

// The best request.n answers; no texts.
std::vector<Answer> SimulateBeams(const Request& request,
                                  const std::vector<int32_t>& end_token_ids);

}  // namespace sirocco
