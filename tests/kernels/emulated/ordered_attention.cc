// kernels/cuda/ordered_attention.cu for the emulated GPU, with the headers of kernels/cuda beside
// this.
#include "tests/kernels/emulated/language.h"
// Needs the language.
#include "kernels/cuda/ordered_attention.cu"  // NOLINT
