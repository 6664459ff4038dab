// The base of every generated kernel: storage types, the functions of rules, the tables of a launch. F is the compute type;
// SCALARS is the rule's number of scalars. Knows no rule.

#ifdef __CUDACC__ // otherwise whoever compiles it for a host has defined these
#define DEVICE static __device__ __forceinline__
#define METHOD __device__ __forceinline__ // of an object
#define SHARED __shared__
#define GLOBAL(pointer) __builtin_assume(__isGlobal(pointer)) // avoids generic addressing
#pragma nv_diag_suppress 177 // a unit does not use every function
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

// As in dtype.rs: exact loads; stores round to nearest even and canonicalize NaN.
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

// The functions of real.rs.
DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE float sqrt(float x) { return __fsqrt_rn(x); }
DEVICE double sqrt(double x) { return __dsqrt_rn(x); }
template <class C> DEVICE C select(bool condition, C a, C b) { return condition ? a : b; }
DEVICE float abs(float x) { return of_bits(bits_of(x) & 0x7fffffffu); }
DEVICE double abs(double x) { return __longlong_as_double(__double_as_longlong(x) & 0x7fffffffffffffffll); }
template <class C> DEVICE C sign(C x) { return x > C(0) ? C(1) : x < C(0) ? C(-1) : x; }
template <class C> DEVICE C max(C a, C b) { return select(a > b || a != a, a, b); }
template <class C> DEVICE C min(C a, C b) { return select(a < b || a != a, a, b); }

// Access to device memory through pointers from a table.
template <class T> DEVICE T get(const T* at) {
    GLOBAL(at);
    return *at;
}
template <class T> DEVICE void put(T* at, T x) {
    GLOBAL(at);
    *at = x;
}

// An array, and the offsets of its data in the tables of a launch.
struct Array {
    u64 len;
    u64 pointers;    // of the parameter, element states, row vectors, column vectors, array states
    u64 own;         // scalars of its own
    u64 block, cell; // its first block and cell among those of all arrays of its rule
    u64 piece, column, run;
    // Its memory layout: matrices, rows of each, elements of a row; whether rows are columns of the array; and the number of
    // interleaved matrices.
    u64 batch, rows, cols, transposed, interleaved;
    // Its cells, as in matrix.rs: rows of a panel, panels of a matrix, matrices of a cell, number of cells, and the maximum
    // number of pieces of a cell.
    u64 panel, panels, together, cells, pieces;
};

// A part of an array; its extent depends on the kernel.
struct Chunk { u32 array, index; };

struct Args {
    const Array* arrays;
    void* const* pointers;
    void* const* grads;
    const Chunk* chunks;
    double* partials; // for each reduction, and each block or cell of the rule's arrays
    double* pieces;   // for each reduction and piece of a cell
    double* columns;  // for each reduction, and each column of a panel
    double* runs;     // for each reduction of a stage over rows or columns, and each matrix
    double* own;      // the scalars of arrays
    double* group;    // the scalars computed on the device for the group, by index
    double* shared;   // the states of scope `all`
    const double* factor; // multiplies gradients in addition to their scalar, or null
    u64* nonfinite;   // position of the first such gradient, counting every array as whole blocks
    u64 stride, piece_stride, column_stride, run_stride; // from one reduction to the next
    u64 blocks, cells; // of all arrays of the rule
    u64 l2, zero, lead; // whether there is L2 decay; gradients are zeroed; the group determines the states of scope `all`
    u64 scalars[SCALARS]; // the group's, as bits of F
};

enum { THREADS = 256, BLOCK = 1024, LANES = 16, CHUNK = 16384, STRIP = 4096, SHORT = 256 };
enum { PLAIN, SQUARE, FAST, PRODUCT, MAX };

DEVICE float value(u64 bits, float) { return of_bits((u32)bits); }
DEVICE double value(u64 bits, double) { return __longlong_as_double((long long)bits); }

// A float64 number computed on the device, rounded to the compute type.
DEVICE F rounded(const double* at) { return (F)get(at); }

DEVICE F gradient_factor_of(const Args& args) {
    F own = value(args.scalars[0], F());
    return args.factor ? own * rounded(args.factor) : own;
}

DEVICE u64 least(u64 a, u64 b) { return a < b ? a : b; }
DEVICE u64 over(u64 a, u64 b) { return (a | b) >> 32 ? a / b : (u64)((u32)a / (u32)b); }
DEVICE u64 over_up(u64 a, u64 b) { return over(a + b - 1, b); }
DEVICE double neutral(int form) { return form == MAX ? -1.0 / 0.0 : 0.0; }
DEVICE double combine(int form, double a, double b) { return form == MAX ? max(a, b) : a + b; }

// The indices of an element's two sums: over contiguous neighbours, and over elements a row apart.
struct Place { u64 along, across; };
DEVICE Place place_of(const Array& array, u64 i) {
    u64 row = over(i, array.cols), col = i - row * array.cols;
    u64 matrix = array.batch == 1 ? 0 : over(row, array.rows);
    u64 one = array.interleaved == 1 ? 0 : col - over(col, array.interleaved) * array.interleaved;
    return {row * array.interleaved + one, matrix * array.cols + col};
}
DEVICE bool adjacent(const Array& array, bool row) { return row != (array.transposed != 0); }

// Number of rows or columns of all matrices.
DEVICE u64 vector_length(const Array& array, bool row) {
    return array.batch * (adjacent(array, row) ? array.rows * array.interleaved : array.cols);
}

} // namespace schuss
