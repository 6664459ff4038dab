// Emulates the CUDA driver and NVRTC on the host, with NVIDIA's names and signatures, for tests without a GPU.
//
// It compiles with g++ without contraction, and "machine code" is a shared library; threads of a block that share a
// barrier are coroutines. So the generated source, and all code that launches it, runs on the host. Streams are queues:
// with EMULATOR_LAZY=1 their work runs only when something waits for it, which reveals missing synchronization. Freed
// memory is overwritten immediately and never reused. Every call adds a line to a log that tests read.

#include <sys/mman.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

typedef unsigned long long u64;
typedef u64 Pointer;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600 };

static std::recursive_mutex mutex;
static std::string text;
static std::string failing;
static int failing_in = 0;

static bool lazy() {
    static const bool value = getenv("EMULATOR_LAZY") != nullptr;
    return value;
}

// Writes the log; returns true if a test wants this call to fail.
static bool call(const char* name, const std::string& rest = "") {
    text += name + (rest.empty() ? "" : " " + rest) + "\n";
    return name == failing && --failing_in == 0;
}
#define CALL(...) \
    std::lock_guard<std::recursive_mutex> guard(mutex); \
    if (call(__VA_ARGS__)) return OUT_OF_MEMORY

// A stream that has been destroyed is an error here; a driver may do anything with it.
#define USES(stream) if (destroyed.count(stream)) return INVALID_HANDLE

template <class... T> static std::string join(T... values) {
    std::ostringstream out;
    ((out << values << " "), ...);
    std::string all = out.str();
    all.pop_back();
    return all;
}

// Threads.

struct Dim { unsigned x, y, z; };
extern "C" { Dim emulated_thread, emulated_block; }

typedef void (*Kernel)(void*);
struct Function { std::string name; Kernel kernel; size_t bytes; bool meets; };

// Whether a kernel of this name has barriers.
static bool meets(const std::string& name) {
    for (const char* part : {"elements", "cells", "across_rows", "across_cols", "panels_of_rows", "panels_of_cols", "numbers"}) {
        if (name.size() > strlen(part) && !name.compare(name.size() - strlen(part), std::string::npos, part)) return false;
    }
    return true;
}

// Coroutines, which are created once. They switch with longjmp, because swapcontext makes a system call.
static jmp_buf scheduler;
static ucontext_t origin;
struct Fiber { ucontext_t start; jmp_buf here; std::vector<char> stack; bool begun, finished; };
static std::deque<Fiber> fibers;
static unsigned current;
static Kernel running;
static void* argument;

static void leave() {
    if (!_setjmp(fibers[current].here)) _longjmp(scheduler, 1);
}

static void fiber() {
    for (;;) {
        running(argument);
        fibers[current].finished = true;
        leave();
    }
}

extern "C" void emulated_barrier() { leave(); }

static void enter(unsigned t) {
    current = t;
    emulated_thread = {t, 0, 0};
    if (_setjmp(scheduler)) return;
    if (fibers[t].begun) _longjmp(fibers[t].here, 1);
    fibers[t].begun = true;
    swapcontext(&origin, &fibers[t].start);
}

static void run_block(const Function& f, unsigned threads, void* args) {
    if (!f.meets) { // no barriers
        for (unsigned t = 0; t < threads; t++) {
            emulated_thread = {t, 0, 0};
            f.kernel(args);
        }
        return;
    }
    running = f.kernel;
    argument = args;
    while (fibers.size() < threads) {
        fibers.emplace_back();
        Fiber& made = fibers.back();
        made.stack.resize(65536);
        made.begun = false;
        getcontext(&made.start);
        made.start.uc_stack.ss_sp = made.stack.data();
        made.start.uc_stack.ss_size = made.stack.size();
        made.start.uc_link = nullptr;
        makecontext(&made.start, fiber, 0);
    }
    for (unsigned t = 0; t < threads; t++) fibers[t].finished = false;
    for (bool more = true; more;) {
        more = false;
        for (unsigned t = 0; t < threads; t++) {
            if (fibers[t].finished) continue;
            enter(t);
            more = more || !fibers[t].finished;
        }
    }
}

// Streams and events.

struct Stream { std::deque<std::function<void()>> queue; u64 given = 0, done = 0; };
struct Event { void* stream = nullptr; u64 at = 0; };
static std::map<void*, Stream> streams;
static std::set<void*> destroyed, captured;

static void drain(void* stream, u64 until = ~0ull) {
    Stream& s = streams[stream];
    while (!s.queue.empty() && s.done < until) {
        auto work = s.queue.front();
        s.queue.pop_front();
        s.done++;
        work();
    }
}

static void give(void* stream, std::function<void()> work) {
    streams[stream].given++;
    streams[stream].queue.push_back(work);
    if (!lazy()) drain(stream);
}

// Memory.

struct Range { u64 bytes; int device; bool host; };
static std::map<Pointer, Range> memory;
static thread_local void* context = nullptr;

static int device_now() { return (int)(size_t)context - 1; }

static const Range* find(Pointer p) {
    auto after = memory.upper_bound(p);
    if (after == memory.begin()) return nullptr;
    auto it = std::prev(after);
    return p < it->first + it->second.bytes ? &it->second : nullptr;
}

static int allocate(Pointer* out, size_t bytes, bool host) {
    if (!context) return INVALID_CONTEXT;
    if (bytes > 1ull << 34) return OUT_OF_MEMORY;
    void* p = nullptr;
    if (posix_memalign(&p, 256, bytes)) return OUT_OF_MEMORY;
    memset(p, 0xa5, bytes);
    memory[(Pointer)p] = {bytes, device_now(), host};
    *out = (Pointer)p;
    return SUCCESS;
}

static int release(Pointer p) {
    auto it = memory.find(p);
    if (it == memory.end()) return INVALID_VALUE;
    memset((void*)p, 0xa5, it->second.bytes); // and never allocated again
    const size_t page = 4096, begin = (p + page - 1) / page * page, end = (p + it->second.bytes) / page * page;
    if (end > begin) madvise((void*)begin, end - begin, MADV_DONTNEED); // returns whole pages to the system
    memory.erase(it);
    return SUCCESS;
}

extern "C" {

const char* emulator_log() { return text.c_str(); }
void emulator_clear() { std::lock_guard<std::recursive_mutex> guard(mutex); text.clear(); }
void emulator_capture(void* stream, bool begins) { if (begins) captured.insert(stream); else captured.erase(stream); }
void emulator_fail(const char* name, int nth) { std::lock_guard<std::recursive_mutex> guard(mutex); failing = name; failing_in = nth; }

int cuInit(unsigned) { return getenv("EMULATOR_BROKEN") ? 999 : SUCCESS; }
int cuDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }
int cuGetErrorName(int error, const char** name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
    return SUCCESS;
}
int cuGetErrorString(int error, const char** words) {
    *words = error == OUT_OF_MEMORY ? "out of memory" : "emulated";
    return SUCCESS;
}
int cuDeviceGetCount(int* count) { *count = 2; return SUCCESS; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal >= 0 && ordinal < 2 ? SUCCESS : 101; }
int cuDeviceGetAttribute(int* value, int attribute, int) { *value = attribute == 75 ? atoi(getenv("EMULATOR_MAJOR") ? getenv("EMULATOR_MAJOR") : "9") : 0; return SUCCESS; }
int cuDevicePrimaryCtxRetain(void** out, int device) { CALL("open", join(device)); *out = (void*)(size_t)(device + 1); return SUCCESS; }
int cuCtxGetCurrent(void** out) { *out = context; return SUCCESS; }
int cuCtxSetCurrent(void* wanted) { context = wanted; return SUCCESS; }

int cuPointerGetAttribute(void* out, int attribute, Pointer p) {
    std::lock_guard<std::recursive_mutex> guard(mutex);
    const Range* range = find(p);
    if (!range) return INVALID_VALUE;
    *(int*)out = attribute == 2 ? (range->host ? 1 : 2) : range->device;
    return SUCCESS;
}

int cuMemAlloc_v2(Pointer* out, size_t bytes) { CALL("alloc", join(bytes)); return allocate(out, bytes, false); }
int cuMemFree_v2(Pointer p) { CALL("free"); return release(p); }
int cuMemHostAlloc(void** out, size_t bytes, unsigned) { CALL("pin", join(bytes)); return allocate((Pointer*)out, bytes, true); }
int cuMemFreeHost(void* p) { CALL("unpin"); return release((Pointer)p); }

int cuMemcpyAsync(Pointer to, Pointer from, size_t bytes, void* stream) {
    std::lock_guard<std::recursive_mutex> outer(mutex);
    const Range *target = find(to), *source = find(from);
    const char* kind = !target || target->host ? "to-host" : !source || source->host ? "to-device" : "on-device";
    CALL("copy", join(bytes, kind, stream));
    USES(stream);
    give(stream, [=] { memcpy((void*)to, (void*)from, bytes); }); // pageable memory too: a driver may wait for it or not
    return SUCCESS;
}
int cuMemsetD8Async(Pointer to, unsigned char byte, size_t bytes, void* stream) {
    CALL("fill", join(bytes, stream));
    USES(stream);
    give(stream, [=] { memset((void*)to, byte, bytes); });
    return SUCCESS;
}
int cuMemsetD8_v2(Pointer to, unsigned char byte, size_t bytes) { return cuMemsetD8Async(to, byte, bytes, nullptr); }

int cuCtxSynchronize() {
    std::lock_guard<std::recursive_mutex> guard(mutex);
    for (auto& entry : streams) drain(entry.first);
    return SUCCESS;
}
int cuStreamCreate(void** out, unsigned) { static size_t next = 0x100; *out = (void*)next++; return SUCCESS; }
int cuStreamDestroy_v2(void* stream) { destroyed.insert(stream); return SUCCESS; }
int cuStreamIsCapturing(void* stream, int* status) { *status = captured.count(stream); return SUCCESS; }
int cuStreamSynchronize(void* stream) { CALL("synchronize", join(stream)); USES(stream); drain(stream); return SUCCESS; }
int cuStreamWaitEvent(void* stream, Event* event, unsigned) {
    CALL("order", join(event->stream, "before", stream));
    USES(stream);
    Event at = *event;
    if (at.at) give(stream, [=] { drain(at.stream, at.at); });
    return SUCCESS;
}
int cuEventCreate(Event** out, unsigned) { *out = new Event(); return SUCCESS; }
int cuEventDestroy_v2(Event* event) { delete event; return SUCCESS; }
int cuEventRecord(Event* event, void* stream) {
    CALL("record", join(stream));
    USES(stream);
    give(stream, [] {});
    *event = {stream, streams[stream].given};
    return SUCCESS;
}
int cuEventQuery(Event* event) {
    std::lock_guard<std::recursive_mutex> guard(mutex);
    return !event->at || streams[event->stream].done >= event->at ? SUCCESS : NOT_READY;
}
int cuEventSynchronize(Event* event) { CALL("wait", join(event->stream)); drain(event->stream, event->at); return SUCCESS; }

int cuModuleLoadData(void** out, const char* image) {
    CALL("load");
    // Kernels resolve the functions for threads and barriers among the symbols of the process.
    Dl_info own;
    static void* const everywhere = dladdr((void*)cuModuleLoadData, &own) ? dlopen(own.dli_fname, RTLD_NOW | RTLD_GLOBAL) : nullptr;
    if (!everywhere) return NOT_FOUND;
    u64 length;
    if (memcmp(image, "EMULATED", 8)) return INVALID_IMAGE;
    memcpy(&length, image + 8, 8);
    char path[] = "/tmp/emulated-XXXXXX";
    int file = mkstemp(path);
    bool whole = file >= 0 && write(file, image + 16, length) == (ssize_t)length;
    close(file);
    *out = whole ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!*out) fprintf(stderr, "emulator: %s\n", dlerror());
    unlink(path);
    return *out ? SUCCESS : INVALID_IMAGE;
}
int cuModuleGetFunction(Function** out, void* module, const char* name) {
    void* kernel = dlsym(module, name);
    size_t* bytes = (size_t*)dlsym(module, "emulated_argument_bytes");
    if (!kernel || !bytes) return NOT_FOUND;
    *out = new Function{name, (Kernel)kernel, *bytes, meets(name)};
    return SUCCESS;
}
int cuLaunchKernel(Function* f, unsigned x, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned, void* stream,
                   void** parameters, void**) {
    CALL("launch", join(f->name, x, stream));
    USES(stream);
    if (!x) return INVALID_VALUE;
    auto args = std::make_shared<std::vector<char>>((char*)parameters[0], (char*)parameters[0] + f->bytes);
    give(stream, [=] {
        for (unsigned b = 0; b < x; b++) {
            emulated_block = {b, 0, 0};
            run_block(*f, threads, args->data());
        }
    });
    return SUCCESS;
}

// NVRTC.

struct Program { std::string source, log, code; };

static const char* const PREFIX = R"(
#include <cstddef>
#include <cstring>
struct Dim { unsigned x, y, z; };
extern "C" { extern Dim emulated_thread, emulated_block; void emulated_barrier(); }
#define threadIdx emulated_thread
#define blockIdx emulated_block
#define __syncthreads emulated_barrier
#define DEVICE static inline __attribute__((always_inline))
#define METHOD inline __attribute__((always_inline))
#define SHARED static
#define GLOBAL(pointer)
#define KERNEL(name) static void name##_body(const schuss::Args& args); \
    extern "C" void name(const schuss::Args* args) { name##_body(*args); } static void name##_body(const schuss::Args& args)
template <class A, class B> static A same_bits(B x) { A a; static_assert(sizeof a == sizeof x, ""); memcpy(&a, &x, sizeof a); return a; }
static inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
static inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return same_bits<double>(x); }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
static inline double __dsqrt_rn(double x) { return __builtin_sqrt(x); }
static inline void atomicMin(unsigned long long* at, unsigned long long x) { if (x < *at) *at = x; }
)";

int nvrtcVersion(int* major, int* minor) { *major = 12; *minor = 99; return 0; }
int nvrtcGetNumSupportedArchs(int* count) { *count = 2; return 0; }
int nvrtcGetSupportedArchs(int* archs) { archs[0] = 75; archs[1] = 90; return 0; }
int nvrtcCreateProgram(Program** out, const char* source, const char*, int, const char* const*, const char* const*) {
    CALL("program");
    *out = new Program{source, "", ""};
    return 0;
}
int nvrtcDestroyProgram(Program** program) { delete *program; *program = nullptr; return 0; }
int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    std::string given;
    for (int i = 0; i < count; i++) given += std::string(" ") + options[i];
    {
        std::lock_guard<std::recursive_mutex> guard(mutex);
        if (call("compile", given.substr(1))) {
            program->log = "emulated\n";
            return 6;
        }
    }
    char folder[] = "/tmp/emulated-XXXXXX";
    if (!mkdtemp(folder)) return 1;
    std::string base = folder;
    std::ofstream(base + "/unit.cpp") << PREFIX << program->source
        << "\nextern \"C\" { size_t emulated_argument_bytes = sizeof(schuss::Args); }\n";
    std::string command = "g++ -std=c++17 -O2 -march=native -ffp-contract=off -fno-strict-aliasing -w -shared -fPIC -o " + base +
        "/unit.so " + base + "/unit.cpp 2> " + base + "/log";
    int status = system(command.c_str());
    auto slurp = [](const std::string& path) {
        std::ifstream file(path, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(file), {});
    };
    program->log = slurp(base + "/log");
    std::string code = status ? "" : slurp(base + "/unit.so");
    u64 length = code.size();
    program->code = "EMULATED" + std::string((char*)&length, 8) + code;
    for (const char* name : {"/unit.cpp", "/unit.so", "/log"}) unlink((base + name).c_str());
    rmdir(folder);
    return status ? 6 : 0;
}
int nvrtcGetProgramLogSize(Program* p, size_t* size) { *size = p->log.size() + 1; return 0; }
int nvrtcGetProgramLog(Program* p, char* out) { memcpy(out, p->log.c_str(), p->log.size() + 1); return 0; }
int nvrtcGetCUBINSize(Program* p, size_t* size) { CALL("code"); *size = p->code.size(); return 0; }
int nvrtcGetCUBIN(Program* p, char* out) { memcpy(out, p->code.data(), p->code.size()); return 0; }
int nvrtcGetPTXSize(Program* p, size_t* size) { return nvrtcGetCUBINSize(p, size); }
int nvrtcGetPTX(Program* p, char* out) { return nvrtcGetCUBIN(p, out); }

} // extern "C"
