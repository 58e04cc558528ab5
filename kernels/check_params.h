// The checks of each operation's parameters, which every backend makes first: what holds on all of
// them. A backend may add what its own kernels need.
//
// What a fused operation finds in its layer's entry of the table the host does not see: that is
// checked, if at all, where it runs.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/checks.h"
#include "kernels/ops.h"

namespace sirocco {

Checks CheckParams(const BeginStepParams& p, const BackendTypes& types);
Checks CheckParams(const EmbedParams& p, const BackendTypes& types);
Checks CheckParams(const RmsNormParams& p, const BackendTypes& types);
Checks CheckParams(const MatMulParams& p, const BackendTypes& types);
Checks CheckParams(const RotaryParams& p, const BackendTypes& types);
Checks CheckParams(const WriteKvParams& p, const BackendTypes& types);
Checks CheckParams(const DecodeAttentionParams& p, const BackendTypes& types);
Checks CheckParams(const PrefillAttentionParams& p, const BackendTypes& types);
Checks CheckParams(const AddParams& p, const BackendTypes& types);
Checks CheckParams(const GatedActivationParams& p, const BackendTypes& types);
Checks CheckParams(const GatherRowsParams& p, const BackendTypes& types);
Checks CheckParams(const SampleParams& p, const BackendTypes& types);
Checks CheckParams(const ScoreTokensParams& p, const BackendTypes& types);
Checks CheckParams(const NormQkvParams& p, const BackendTypes& types);
Checks CheckParams(const QkvParams& p, const BackendTypes& types);
Checks CheckParams(const QkvAttentionParams& p, const BackendTypes& types);
Checks CheckParams(const QkvEndParams& p, const BackendTypes& types);
Checks CheckParams(const OutputResidualParams& p, const BackendTypes& types);
Checks CheckParams(const NormGateUpParams& p, const BackendTypes& types);
Checks CheckParams(const DownResidualParams& p, const BackendTypes& types);
Checks CheckParams(const DownNormParams& p, const BackendTypes& types);
Checks CheckParams(const HeadNormParams& p, const BackendTypes& types);
Checks CheckParams(const AddNormParams& p, const BackendTypes& types);
Checks CheckParams(const AdjustLogitsParams& p, const BackendTypes& types);
Checks CheckParams(const NormQkParams& p, const BackendTypes& types);
Checks CheckParams(const ExpertsParams& p, const BackendTypes& types);
Checks CheckParams(const DecoderLayersParams& p, const BackendTypes& types);
Checks CheckParams(const OutputGateUpParams& p, const BackendTypes& types);
Checks CheckParams(const DownQkvParams& p, const BackendTypes& types);

// That update `index` of a step is outside the block tables: found where the step runs.
absl::Status OutsideBlockTables(int32_t index, const BlockUpdate& update);

}  // namespace sirocco
