// How long what a stream does takes, as a graph.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "tests/bench/stream_world.cuh"

namespace sirocco {

// Microseconds of what `work` enqueues on `stream`: the median of 15 launches of its graph, or of so many
// times `at_once` launches one after the other.
inline double GraphMicroseconds(cudaStream_t stream, const std::function<void()>& work,
                                int at_once = 1) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  work();
  MUST(cudaStreamEndCapture(stream, &graph));
  MUST(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t from, to;
  MUST(cudaEventCreate(&from));
  MUST(cudaEventCreate(&to));
  std::vector<float> times;
  for (int i = 0; i < 18; ++i) {
    MUST(cudaEventRecord(from, stream));
    for (int k = 0; k < at_once; ++k) MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaEventRecord(to, stream));
    MUST(cudaEventSynchronize(to));
    float ms = 0;
    MUST(cudaEventElapsedTime(&ms, from, to));
    if (i >= 3) times.push_back(ms / static_cast<float>(at_once));
  }
  MUST(cudaEventDestroy(from));
  MUST(cudaEventDestroy(to));
  MUST(cudaGraphExecDestroy(exec));
  MUST(cudaGraphDestroy(graph));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2] * 1e3;
}

}  // namespace sirocco
