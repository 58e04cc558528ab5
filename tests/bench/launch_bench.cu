// What the host takes for the calls of CUDA that a step is launched by, one by one: medians of
// batches of calls, each batch begun on an idle device. Links nothing of Sirocco.
//
//   nvcc -std=c++20 -O2 -arch=sm_90 tests/bench/launch_bench.cu -o launch_bench -lcublasLt
//   launch_bench
#include <cublasLt.h>
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

void Must(bool ok, const char* what, int line) {
  if (ok) return;
  std::fprintf(stderr, "launch_bench: line %d: %s failed\n", line, what);
  std::exit(1);
}
#define MUST(call) Must((call) == 0, #call, __LINE__)  // all of CUDA's successes are 0

constexpr int kBatch = 200;  // calls; far fewer than a stream holds back
constexpr int kRounds = 31;

template <int kBytes>
struct Params {
  char bytes[kBytes];
};

template <int kBytes>
__global__ void Empty(const __grid_constant__ Params<kBytes> p) {
  if (threadIdx.x == 1024) printf("%d", p.bytes[0]);  // never
}

double Now() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Microseconds a call, in the median; and until all is done.
template <typename Call>
void Report(const char* name, cudaStream_t stream, const Call& call, int batch = kBatch) {
  std::vector<double> host, all;
  for (int round = 0; round < kRounds; ++round) {
    MUST(cudaStreamSynchronize(stream));
    const double begin = Now();
    for (int i = 0; i < batch; ++i) call();
    host.push_back((Now() - begin) / batch);
    MUST(cudaStreamSynchronize(stream));
    all.push_back((Now() - begin) / batch);
  }
  std::ranges::sort(host);
  std::ranges::sort(all);
  std::printf("%-58s %9.3f %9.3f\n", name, host[kRounds / 2], all[kRounds / 2]);
}

// cluster 0: none.
template <int kBytes>
void Launch(cudaStream_t stream, bool programmatic, unsigned cluster) {
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(128);
  config.blockDim = dim3(128);
  config.stream = stream;
  config.attrs = attributes;
  if (programmatic) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 0) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {cluster, 1, 1};
  }
  MUST(cudaLaunchKernelEx(&config, Empty<kBytes>, Params<kBytes>()));
}

void Launches(cudaStream_t stream) {
  Report("a kernel, 64 bytes of parameters", stream, [&] { Launch<64>(stream, false, 0); });
  Report("the same, programmatic", stream, [&] { Launch<64>(stream, true, 0); });
  Report("the same, in clusters of 4", stream, [&] { Launch<64>(stream, true, 4); });
  Report("a kernel, 480 bytes, programmatic", stream, [&] { Launch<480>(stream, true, 0); });
  Report("the same, in clusters of 4", stream, [&] { Launch<480>(stream, true, 4); });
}

void Attributes(cudaStream_t stream) {
  int device = 0;
  Report("cudaGetDevice", stream, [&] { MUST(cudaGetDevice(&device)); });
  Report("cudaFuncSetAttribute, dynamic shared memory", stream, [] {
    MUST(cudaFuncSetAttribute(Empty<64>, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 << 10));
  });
  Report("cudaFuncSetAttribute, carveout", stream, [] {
    MUST(cudaFuncSetAttribute(Empty<64>, cudaFuncAttributePreferredSharedMemoryCarveout,
                              cudaSharedmemCarveoutMaxShared));
  });
}

void Maps(cudaStream_t stream, void* data) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  MUST(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                        &result));
  MUST(found == nullptr);
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  CUtensorMap map;
  const cuuint64_t size[2] = {1152, 1536}, stride[1] = {2304};
  const cuuint32_t box[2] = {64, 64}, step[2] = {1, 1};
  Report("cuTensorMapEncodeTiled", stream, [&] {
    MUST(encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, data, size, stride, box, step,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  });
}

void CopiesAndEvents(cudaStream_t stream, void* data) {
  void* pinned = nullptr;
  MUST(cudaMallocHost(&pinned, 4096));
  Report("cudaMemcpyAsync, 80 bytes to the device", stream, [&] {
    MUST(cudaMemcpyAsync(data, pinned, 80, cudaMemcpyHostToDevice, stream));
  });
  Report("cudaMemcpyAsync, 80 bytes to the host", stream, [&] {
    MUST(cudaMemcpyAsync(pinned, data, 80, cudaMemcpyDeviceToHost, stream));
  });
  cudaEvent_t event;
  MUST(cudaEventCreate(&event));
  Report("cudaEventRecord", stream, [&] { MUST(cudaEventRecord(event, stream)); });
  MUST(cudaEventDestroy(event));
  MUST(cudaFreeHost(pinned));
}

// out[rows, outputs] = in[rows, inputs] * weight^T by the library's first answer, in `parts` of the
// inputs side by side.
void Product(cudaStream_t stream, cublasLtHandle_t library, void* data, void* workspace, int rows,
             int outputs, int inputs, int parts) {
  const size_t kWorkspace = size_t{32} << 20;
  cublasLtMatmulDesc_t product;
  MUST(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  MUST(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                      sizeof(transposed)));
  cublasLtMatrixLayout_t a, b, d;
  const int own = inputs / parts;
  MUST(cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, own, outputs, inputs));
  MUST(cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, own, rows, inputs));
  MUST(cublasLtMatrixLayoutCreate(&d, CUDA_R_32F, outputs, rows, outputs));
  const int64_t strides[3] = {own, own, int64_t{rows} * outputs};
  const cublasLtMatrixLayout_t layouts[3] = {a, b, d};
  for (int i = 0; i < 3 && parts > 1; ++i) {
    MUST(cublasLtMatrixLayoutSetAttribute(layouts[i], CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &parts,
                                          sizeof(parts)));
    MUST(cublasLtMatrixLayoutSetAttribute(layouts[i],
                                          CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &strides[i],
                                          sizeof(strides[i])));
  }
  cublasLtMatmulPreference_t preference;
  MUST(cublasLtMatmulPreferenceCreate(&preference));
  MUST(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &kWorkspace, sizeof(kWorkspace)));
  cublasLtMatmulHeuristicResult_t answer;
  int found = 0;
  MUST(cublasLtMatmulAlgoGetHeuristic(library, product, a, b, d, d, preference, 1, &answer,
                                      &found));
  MUST(found != 1);
  const float alpha = 1, beta = 0;
  char name[100];
  std::snprintf(name, sizeof(name), "cublasLtMatmul, [%d, %d] * [%d, %d]^T, %d part(s)", rows,
                inputs, outputs, inputs, parts);
  Report(name, stream, [&] {
    MUST(cublasLtMatmul(library, product, &alpha, data, a, data, b, &beta, data, d, data, d,
                        &answer.algo, workspace, kWorkspace, stream));
  });
  MUST(cublasLtMatmulPreferenceDestroy(preference));
  for (cublasLtMatrixLayout_t layout : layouts) MUST(cublasLtMatrixLayoutDestroy(layout));
  MUST(cublasLtMatmulDescDestroy(product));
}

// The four products of a layer of gemma3-1b.
void Products(cudaStream_t stream, void* data, void* workspace) {
  cublasLtHandle_t library;
  MUST(cublasLtCreate(&library));
  for (const int rows : {80, 512}) {
    Product(stream, library, data, workspace, rows, 1536, 1152, 1);
    Product(stream, library, data, workspace, rows, 1152, 1024, 1);
    Product(stream, library, data, workspace, rows, 13824, 1152, 1);
    Product(stream, library, data, workspace, rows, 1152, 6912, 4);
  }
  MUST(cublasLtDestroy(library));
}

// A step of so many kernels as a graph: what it takes to make, to renew and to launch.
void Graphs(cudaStream_t stream, int kernels) {
  cudaGraph_t graph = nullptr;
  const auto capture = [&] {
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    for (int i = 0; i < kernels; ++i) Launch<480>(stream, true, 0);
    MUST(cudaStreamEndCapture(stream, &graph));
  };
  std::printf("a graph of %d kernels:\n", kernels);
  Report("  captured", stream, [&] {
    if (graph != nullptr) MUST(cudaGraphDestroy(graph));
    capture();
  }, 1);
  cudaGraphExec_t executable = nullptr;
  Report("  instantiated and uploaded", stream, [&] {
    if (executable != nullptr) MUST(cudaGraphExecDestroy(executable));
    MUST(cudaGraphInstantiate(&executable, graph, 0));
    MUST(cudaGraphUpload(executable, stream));
  }, 1);
  Report("  updated by another capture (cudaGraphExecUpdate)", stream, [&] {
    cudaGraphExecUpdateResultInfo info;
    MUST(cudaGraphExecUpdate(executable, graph, &info));
  }, 1);
  Report("  launched", stream, [&] { MUST(cudaGraphLaunch(executable, stream)); }, 1);
  Report("  launched kernel by kernel", stream, [&] {
    for (int i = 0; i < kernels; ++i) Launch<480>(stream, true, 0);
  }, 1);
  MUST(cudaGraphExecDestroy(executable));
  MUST(cudaGraphDestroy(graph));
}

}  // namespace

int main() {
  cudaDeviceProp device;
  MUST(cudaGetDeviceProperties(&device, 0));
  cudaStream_t stream;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  void *data, *workspace;
  MUST(cudaMalloc(&data, size_t{64} << 20));
  MUST(cudaMemset(data, 0, size_t{64} << 20));
  MUST(cudaMalloc(&workspace, size_t{32} << 20));
  std::printf("%s\n%-58s %9s %9s\n", device.name, "us a call", "host", "all done");
  Launches(stream);
  Attributes(stream);
  Maps(stream, data);
  CopiesAndEvents(stream, data);
  Products(stream, data, workspace);
  Graphs(stream, 208);
  Graphs(stream, 236);
}
