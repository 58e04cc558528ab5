// Which instruction sets the CPU backend is compiled for: AVX2 and AVX-512, and a portable
// fallback. To be included before anything of Highway.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
