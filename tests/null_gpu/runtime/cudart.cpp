// A CUDA runtime without a device. Device memory is memory of the host, copies are made, kernels are counted by name and
// not executed. The functions replace those of libcudart.so for a process that preloads this library.
//
// What a test reads and sets (see ../null_cuda.py): nullcuda_reset, nullcuda_counts, nullcuda_used, nullcuda_poison.
// The environment variable NULLCUDA_GB is the memory of the card, in GiB.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr size_t PAGE = 4096;

struct Range {
    size_t bytes;
    cudaMemoryType type;
};

std::mutex mutex;
std::map<const char*, Range> ranges;                    // what was allocated, by address
std::map<unsigned long long, size_t> physical;          // allocations of the driver's virtual memory interface
std::unordered_map<const void*, const char*> kernels;   // names of the registered kernels
std::map<std::string, long> counts;
size_t used = 0;                                        // bytes of device memory
cudaError_t poison = cudaSuccess;                       // sticky error that every later call returns

// What was called between the begin and the end of a capture: it is kept, and not done. A launch makes the copies.
struct Graph {
    size_t nodes = 0;
    std::vector<std::function<void()>> copies;
};
Graph* captured = nullptr;                              // the graph that is being captured; one at a time
cudaStream_t captured_stream = nullptr;

size_t card_bytes() {
    static const size_t bytes = [] {
        const char* gb = getenv("NULLCUDA_GB");
        return gb ? size_t(atof(gb) * (1ull << 30)) : (80ull << 30);
    }();
    return bytes;
}

size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE + PAGE; }

// Whether a call is kept in a graph. Libraries such as cuBLAS do not tell their stream.
bool kept(cudaStream_t stream) { return captured && stream == captured_stream; }

void count(const std::string& what, bool in_graph = false) {
    std::lock_guard<std::mutex> guard(mutex);
    if (in_graph) captured->nodes++;
    counts[in_graph ? "CAPTURED " + what : what]++;
}

// A wait. A stream that is captured allows none.
cudaError_t wait(const char* what, bool in_graph) {
    count(std::string("SYNC ") + what);
    return in_graph ? cudaErrorStreamCaptureUnsupported : poison;
}

void* allocate(size_t bytes, cudaMemoryType type) {
    // Pages that nothing is copied to are never touched, so a card of 80 GiB fits on any host.
    void* found = mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) return nullptr;
    std::lock_guard<std::mutex> guard(mutex);
    ranges[(const char*)found] = {bytes, type};
    if (type == cudaMemoryTypeDevice) used += bytes;
    return found;
}

void release(void* address) {
    std::lock_guard<std::mutex> guard(mutex);
    auto found = ranges.find((const char*)address);
    if (found == ranges.end()) return;
    if (found->second.type == cudaMemoryTypeDevice) used -= found->second.bytes;
    munmap(address, whole_pages(found->second.bytes));
    ranges.erase(found);
}

// Call with the mutex held.
cudaMemoryType type_of(const void* address) {
    auto after = ranges.upper_bound((const char*)address);
    if (after == ranges.begin()) return cudaMemoryTypeUnregistered;
    --after;
    return (const char*)address < after->first + after->second.bytes ? after->second.type : cudaMemoryTypeUnregistered;
}

cudaError_t copy(const char* what, void* to, const void* from, size_t bytes, cudaMemcpyKind kind, bool in_graph) {
    static const char* const kinds[] = {"H2H", "H2D", "D2H", "D2D", "default"};
    std::string line = std::string(what) + " " + kinds[kind];
    bool pageable = false;
    {
        std::lock_guard<std::mutex> guard(mutex);
        if (kind == cudaMemcpyHostToDevice) pageable = type_of(from) != cudaMemoryTypeHost;
        if (kind == cudaMemcpyDeviceToHost) pageable = type_of(to) != cudaMemoryTypeHost;
    }
    if (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToHost) line += pageable ? " pageable" : " pinned";
    count(line, in_graph);
    if (in_graph && pageable) return cudaErrorStreamCaptureUnsupported;
    if (in_graph) captured->copies.push_back([=] { memmove(to, from, bytes); });
    else memmove(to, from, bytes);
    return poison;
}

cudaError_t launch(const void* kernel, cudaStream_t stream) {
    auto found = kernels.find(kernel);
    count(std::string("KERNEL ") + (found == kernels.end() ? "unknown" : found->second), kept(stream));
    return poison;
}

template <typename Handle>
cudaError_t handle(Handle* made) {
    *made = (Handle)malloc(8);
    return cudaSuccess;
}

int nothing() { return 0; }

}  // namespace

// For the tests

EXPORT void nullcuda_reset() {
    std::lock_guard<std::mutex> guard(mutex);
    counts.clear();
}

EXPORT void nullcuda_count(const char* what) { count(what, captured); }

EXPORT size_t nullcuda_used() { return used; }

EXPORT void nullcuda_poison(int error) { poison = (cudaError_t)error; }

// Writes lines "NUMBER TAB WHAT" and returns the length of all of them, even if `size` is too small.
EXPORT int nullcuda_counts(char* out, int size) {
    std::lock_guard<std::mutex> guard(mutex);
    std::string text;
    for (const auto& [what, number] : counts) text += std::to_string(number) + "\t" + what + "\n";
    snprintf(out, size, "%s", text.c_str());
    return (int)text.size();
}

// Devices

EXPORT cudaError_t cudaGetDeviceCount(int* number) { return *number = 1, cudaSuccess; }
EXPORT cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
EXPORT cudaError_t cudaSetDevice(int) { return cudaSuccess; }
EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
EXPORT cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
EXPORT cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "Null H100");
    properties->totalGlobalMem = card_bytes();
    properties->major = 9;
    properties->minor = 0;
    properties->multiProcessorCount = 132;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 2147483647;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->maxBlocksPerMultiProcessor = 32;
    properties->sharedMemPerBlock = 49152;
    properties->sharedMemPerBlockOptin = 232448;
    properties->sharedMemPerMultiprocessor = 233472;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->l2CacheSize = 50 << 20;
    properties->textureAlignment = 512;
    properties->unifiedAddressing = 1;
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = 132; break;
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
        case cudaDevAttrMaxGridDimY: *value = 65535; break;
        case cudaDevAttrMaxGridDimZ: *value = 65535; break;
        default: *value = 0;
    }
    return cudaSuccess;
}

// Errors

EXPORT const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "null";
}
EXPORT const char* cudaGetErrorName(cudaError_t) { return "null"; }
EXPORT cudaError_t cudaGetLastError() { return poison; }
EXPORT cudaError_t cudaPeekAtLastError() { return poison; }

// Memory

EXPORT cudaError_t cudaMemGetInfo(size_t* left, size_t* all) {
    *all = card_bytes();
    *left = *all - used;
    return cudaSuccess;
}
EXPORT cudaError_t cudaMalloc(void** address, size_t bytes) {
    *address = used + bytes > card_bytes() ? nullptr : allocate(bytes, cudaMemoryTypeDevice);
    count("ALLOCATION device");
    return *address ? cudaSuccess : cudaErrorMemoryAllocation;
}
EXPORT cudaError_t cudaFree(void* address) { return release(address), cudaSuccess; }
EXPORT cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
    *address = allocate(bytes, cudaMemoryTypeHost);
    count("ALLOCATION pinned");
    return cudaSuccess;
}
EXPORT cudaError_t cudaMallocHost(void** address, size_t bytes) { return cudaHostAlloc(address, bytes, 0); }
EXPORT cudaError_t cudaFreeHost(void* address) { return release(address), cudaSuccess; }
EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
    memset(attributes, 0, sizeof *attributes);
    std::lock_guard<std::mutex> guard(mutex);
    attributes->type = type_of(address);
    attributes->devicePointer = attributes->hostPointer = (void*)address;
    return cudaSuccess;
}
EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    return copy("COPY", to, from, bytes, kind, kept(stream));
}
EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    if (auto error = wait("copy", captured)) return error;
    return copy("COPY", to, from, bytes, kind, false);
}
EXPORT cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t stream) {
    count("KERNEL memset", kept(stream));
    if (kept(stream)) captured->copies.push_back([=] { memset(address, value, bytes); });
    else memset(address, value, bytes);
    return poison;
}
EXPORT cudaError_t cudaMemset(void* address, int value, size_t bytes) { return cudaMemsetAsync(address, value, bytes, 0); }

// Virtual memory, which PyTorch uses for expandable segments. These are functions of the driver.

EXPORT int cuMemAddressReserve(unsigned long long* address, size_t bytes, size_t, unsigned long long, unsigned long long) {
    void* found = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) return cudaErrorMemoryAllocation;
    *address = (unsigned long long)found;
    return 0;
}
EXPORT int cuMemAddressFree(unsigned long long address, size_t bytes) { return munmap((void*)address, bytes); }
EXPORT int cuMemGetAllocationGranularity(size_t* bytes, const void*, int) { return *bytes = 2u << 20, 0; }
EXPORT int cuMemCreate(unsigned long long* made, size_t bytes, const void*, unsigned long long) {
    std::lock_guard<std::mutex> guard(mutex);
    if (used + bytes > card_bytes()) return cudaErrorMemoryAllocation;
    static unsigned long long last = 0;
    *made = ++last;
    physical[last] = bytes;
    used += bytes;
    return 0;
}
EXPORT int cuMemRelease(unsigned long long made) {
    std::lock_guard<std::mutex> guard(mutex);
    used -= physical[made];
    physical.erase(made);
    return 0;
}
EXPORT int cuMemMap(unsigned long long address, size_t bytes, size_t, unsigned long long, unsigned long long) {
    std::lock_guard<std::mutex> guard(mutex);
    ranges[(const char*)address] = {bytes, cudaMemoryTypeDevice};
    return 0;
}
EXPORT int cuMemUnmap(unsigned long long address, size_t bytes) {
    std::lock_guard<std::mutex> guard(mutex);
    ranges.erase(ranges.lower_bound((const char*)address), ranges.lower_bound((const char*)(address + bytes)));
    return 0;
}

// PyTorch asks here for functions of the driver: those above, or one that does nothing.
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(
    const char* name, void** function, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* result) {
    void* own = dlsym(RTLD_DEFAULT, name);
    *function = own ? own : (void*)nothing;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

// Streams and events: everything is done at once, so a wait never waits, but it is counted.

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) { return handle(stream); }
EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return handle(stream); }
EXPORT cudaError_t cudaStreamCreate(cudaStream_t* stream) { return handle(stream); }
EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { return *priority = 0, cudaSuccess; }
EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return wait("stream", kept(stream)); }
EXPORT cudaError_t cudaDeviceSynchronize() { return wait("device", captured); }
EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t) { return wait("event", false); }
EXPORT cudaError_t cudaEventCreate(cudaEvent_t* event) { return handle(event); }
EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return handle(event); }
EXPORT cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    return *milliseconds = 1, cudaSuccess;
}

// Graphs

EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    captured = new Graph;  // never freed: a graph may be launched until the end
    captured_stream = stream;
    return poison;
}
EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
    *graph = (cudaGraph_t)captured;
    captured = nullptr;
    return poison;
}
EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    *status = kept(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
EXPORT cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t* graph,
    const cudaGraphNode_t** after, const cudaGraphEdgeData**, size_t* number) {
    if (id) *id = (unsigned long long)captured;
    if (graph) *graph = (cudaGraph_t)captured;
    if (after) *after = nullptr;
    if (number) *number = 0;
    return cudaStreamIsCapturing(stream, status);
}
EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* number) {
    return *number = ((Graph*)graph)->nodes, cudaSuccess;
}
EXPORT cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
    return *made = (cudaGraphExec_t)graph, poison;
}
EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long flags) {
    return cudaGraphInstantiate(made, graph, flags);
}
EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
    count("KERNEL graph");
    for (const auto& make : ((Graph*)graph)->copies) make();
    return poison;
}

// Kernels

EXPORT void** __cudaRegisterFatBinary(void*) {
    static void* registered;
    return &registered;
}
EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EXPORT void __cudaUnregisterFatBinary(void**) {}
EXPORT void __cudaRegisterFunction(
    void**, const char* kernel, char*, const char* name, int, void*, void*, void*, void*, int*) {
    kernels[kernel] = name;
}
EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
    return *kernel = (cudaKernel_t)function, cudaSuccess;
}
EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void**, size_t, cudaStream_t stream) {
    return launch((const void*)kernel, stream);
}
EXPORT cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void**, size_t, cudaStream_t stream) {
    return launch(kernel, stream);
}
EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
    return launch(kernel, config->stream);
}
EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->binaryVersion = attributes->ptxVersion = 90;
    attributes->maxDynamicSharedSizeBytes = 49152;
    return cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
    return *blocks = 8, cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
    return *blocks = 8, cudaSuccess;
}
EXPORT cudaError_t cudaGetSymbolAddress(void** address, const void*) {
    static char symbol[1 << 20];
    return *address = symbol, cudaSuccess;
}
