// What every generated kernel stands on: storage types, the vocabulary of rule texts, the tables of a launch.
// F is the type that is computed in, P, G and S those in which parameters, gradients and states lie.

#ifdef __CUDACC__ // else whoever compiles it for a host has said what these are
#define DEVICE static __device__ __forceinline__
#define SHARED __shared__
#define GLOBAL(pointer) __builtin_assume(__isGlobal(pointer)) // so that accesses are not generic ones
#pragma nv_diag_suppress 177 // a unit has more than it needs
#define KERNEL(name) \
    extern "C" __global__ void __launch_bounds__(schuss::THREADS) name(const __grid_constant__ schuss::Args args)
#endif

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

namespace schuss {

struct f16 { u16 bits; };
struct bf16 { u16 bits; };

DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE float of_bits(u32 x) { return __uint_as_float(x); }

// As in storage.rs: exact loads; stores round to nearest even and know one NaN.
DEVICE float load(float x) { return x; }
DEVICE double load(double x) { return x; }
DEVICE float load(bf16 x) { return of_bits((u32)x.bits << 16); }
DEVICE float load(f16 x) {
    u32 magnitude = (u32)(x.bits & 0x7fff) << 13;
    u32 scaled = bits_of(of_bits(magnitude) * of_bits(0x77800000u));
    u32 special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
    return of_bits(scaled | special | (u32)(x.bits & 0x8000) << 16);
}

DEVICE void store(float& at, float x) { at = x != x ? of_bits(0x7fc00000u) : x; }
DEVICE void store(double& at, double x) { at = x != x ? __longlong_as_double(0x7ff8000000000000ll) : x; }
DEVICE void store(bf16& at, float x) {
    u32 bits = bits_of(x);
    at.bits = x != x ? 0x7fc0 : (u16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
DEVICE void store(f16& at, float x) {
    u32 sign = bits_of(x) >> 16 & 0x8000u;
    u32 magnitude = bits_of(x) & 0x7fffffffu;
    u32 normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    u32 subnormal = bits_of(of_bits(magnitude) + 0.5f) - 0x3f000000u;
    u32 finite = magnitude < 113u << 23 ? subnormal : normal;
    u32 half = magnitude >= 143u << 23 ? 0x7c00u : finite;
    at.bits = x != x ? 0x7e00 : (u16)(half | sign);
}

// The vocabulary of math.rs.
DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE float sqrt(float x) { return __fsqrt_rn(x); }
DEVICE double sqrt(double x) { return __dsqrt_rn(x); }
template <class C> DEVICE C select(bool condition, C a, C b) { return condition ? a : b; }
template <class C> DEVICE C max(C a, C b) { return select(a > b || a != a, a, b); }
template <class C> DEVICE C min(C a, C b) { return select(a < b || a != a, a, b); }

// Memory of the device: what lies behind a pointer from a table.
template <class T> DEVICE T get(const T* at) {
    GLOBAL(at);
    return *at;
}
template <class T> DEVICE void put(T* at, T x) {
    GLOBAL(at);
    *at = x;
}

// An array of the work list. `block` and `row` count its first block of BLOCK elements, and its first centered row, among
// those of all arrays.
struct Array {
    void* param;
    void* states[4];
    u64 len, block, rows, row, strided;
};

// CHUNK elements of an array, from `index * CHUNK`; or one of its rows.
struct Chunk { u32 array, index; };

// What the gradients of all arrays come to.
struct Total {
    u64 nonfinite; // where the first one is, counted as if every array filled its last block; all ones for none
    double sum, norm, factor;
    float factor32;
};

struct Args {
    const Array* arrays;
    void* const* grads;
    const Chunk* chunks;
    double* partials; // a sum for each block: of squares of gradients or parameters, then of directions
    void* ratios;     // for each array, in F
    void* means;      // for each row, in F
    Total* total;
    u64 blocks;
    u64 from_total;   // whether the gradients' factor is the total's, or `factor`
    u64 after;
    u64 factor;       // bits of F
    u64 scalars[16];  // bits of F, or of doubles for what is computed from norms; the first is a sign
    double grad_scale, max_norm;
};

enum { THREADS = 256, BLOCK = 1024, LANES = 16, CHUNK = 16384 };
enum { KEEP = 0, ZERO = 1, COPY = 2 };

DEVICE float value(u64 bits, float) { return of_bits((u32)bits); }
DEVICE double value(u64 bits, double) { return __longlong_as_double((long long)bits); }
DEVICE float factor_of(const Total& total, float) { return total.factor32; }
DEVICE double factor_of(const Total& total, double) { return total.factor; }
DEVICE F gradient_factor(const Args& args) {
    return args.from_total ? factor_of(*args.total, F()) : value(args.factor, F());
}
DEVICE u64 end_of(const Array& array, const Chunk& chunk) {
    u64 end = ((u64)chunk.index + 1) * CHUNK;
    return end < array.len ? end : array.len;
}

// Adds the lanes of each block in a fixed tree; the first lane of each then holds the block's sum.
DEVICE void add_lanes(double* lanes) {
    for (u32 width = LANES / 2; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x % LANES < width) lanes[threadIdx.x] += lanes[threadIdx.x + width];
    }
    __syncthreads();
}

// The sum of numbers in order, by the thread `who`; all threads of the block must take part.
DEVICE double add_in_order(const double* numbers, u64 n, u32 who, double* shared) {
    double sum = 0.0;
    for (u64 at = 0; at < n; at += THREADS) {
        u32 here = n - at < THREADS ? (u32)(n - at) : (u32)THREADS;
        __syncthreads();
        if (threadIdx.x < here) shared[threadIdx.x] = numbers[at + threadIdx.x];
        __syncthreads();
        if (threadIdx.x == who) {
            for (u32 k = 0; k < here; k++) sum += shared[k];
        }
    }
    return sum;
}

} // namespace schuss
