// Which of the two code paths a file is being compiled for: SIROCCO_HOPPER is 1 or 0.
#pragma once

#ifndef SIROCCO_HOPPER
#error "SIROCCO_HOPPER must be 0 or 1"
#endif
#if SIROCCO_HOPPER
#define SIROCCO_CUDA_PATH hopper
#else
#define SIROCCO_CUDA_PATH portable
#endif
