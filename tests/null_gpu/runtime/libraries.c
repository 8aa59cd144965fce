// The functions of the driver, cuBLAS and cuDNN that must return something. ../build.py adds all others.
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

extern void nullcuda_count(const char*);

// The driver (libcuda.so.1)
EXPORT int cuCtxGetCurrent(void** context) { *context = (void*)8; return 0; }
EXPORT int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
    if (flags) *flags = 0;
    if (active) *active = 1;
    return 0;
}
EXPORT int cuGetErrorString(int error, const char** text) { *text = "null"; return 0; }

// The management library (libnvidia-ml.so.1), which PyTorch asks about the links of a GPU: there are none.
EXPORT int nvmlInit_v2(void) { return 0; }
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** device) { *device = (void*)8; return 0; }
EXPORT int nvmlDeviceGetNvLinkRemoteDeviceType(void* device, unsigned link, int* type) { return 3; }
EXPORT int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned link, void* info) { return 3; }
EXPORT int nvmlDeviceGetComputeRunningProcesses(void* device, unsigned* number, void* infos) { *number = 0; return 0; }
EXPORT int nvmlSystemGetCudaDriverVersion_v2(int* version) { *version = 13020; return 0; }
EXPORT int nvmlDeviceGetGpuFabricInfoV(void* device, void* info) { return 0; }

// cuBLAS
EXPORT int cublasGetMathMode(void* handle, int* mode) { *mode = 0; return 0; }
EXPORT int cublasGetPointerMode_v2(void* handle, int* mode) { *mode = 0; return 0; }
EXPORT size_t cublasLtGetVersion(void) { return 130200; }
EXPORT int cublasLtMatmulAlgoGetHeuristic(
    void* handle, void* d, void* a, void* b, void* c, void* e, void* preference, int wanted, void* algorithms, int* found) {
    memset(algorithms, 0, 96);
    *found = 1;
    return 0;
}

// cuDNN: one execution plan for everything, without a workspace
EXPORT int cudnnBackendExecute(void* handle, void* plan, void* values) { nullcuda_count("KERNEL cudnn"); return 0; }
EXPORT int cudnnBackendGetAttribute(void* descriptor, int name, int type, long asked, long* found, void* out) {
    const int is_descriptor = type == 15;
    const int is_note = name == 1303;  // CUDNN_ATTR_ENGINE_NUMERICAL_NOTE: no TF32, or PyTorch would not take the plan
    const long number = is_descriptor ? 1 : (name != 0 && asked != 0 && !is_note);
    if (found) *found = number;
    if (out && number && !is_descriptor) memset(out, 0, 8);
    return 0;
}
EXPORT int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    void* handle, int mode, int ops, void* x, void* z, void* y, void* b, void* a, size_t* size) { *size = 0; return 0; }
EXPORT int cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    void* handle, int mode, int ops, void* x, void* y, void* dy, void* dz, void* dx, void* b, void* a, size_t* size) {
    *size = 0;
    return 0;
}
EXPORT int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
    void* handle, int mode, int ops, void* a, void* x, size_t* size) { *size = 0; return 0; }
EXPORT const char* cudnnGetErrorString(int error) { return "null"; }
EXPORT void cudnnGetLastErrorString(char* text, size_t size) { if (size) text[0] = 0; }
