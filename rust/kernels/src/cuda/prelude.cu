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

// Those of functions.rs, operation by operation.
DEVICE u64 bits_of(double x) { return (u64)__double_as_longlong(x); }
DEVICE double of_bits(u64 x) { return __longlong_as_double((long long)x); }
DEVICE float copysign(float x, float y) { return of_bits((bits_of(x) & 0x7fffffffu) | (bits_of(y) & 0x80000000u)); }
DEVICE double copysign(double x, double y) {
    return of_bits((bits_of(x) & 0x7fffffffffffffffull) | (bits_of(y) & 0x8000000000000000ull));
}
template <class C> DEVICE C polynomial(C, double last) { return C(last); }
template <class C, class... More> DEVICE C polynomial(C x, double c, More... more) {
    return fma(polynomial(x, more...), x, C(c));
}
template <class C> struct Constants;
template <> struct Constants<float> {
    enum { ROUNDS = 1 };
    static METHOD float infinity() { return of_bits(0x7f800000u); }
    static METHOD float below() { return of_bits(0x21800000u); }
    static METHOD float grow() { return of_bits(0x6f800000u); }
    static METHOD float shrink() { return of_bits(0x2f800000u); }
    static METHOD float even(float fourth) {
        return polynomial(fourth, -0.33333153, -0.1421106, -0.07552247, -0.016368112);
    }
    static METHOD float odd(float fourth) {
        return polynomial(fourth, 0.19993773, 0.10666022, 0.0432122, 0.002920732);
    }
};
template <> struct Constants<double> {
    enum { ROUNDS = 2 };
    static METHOD double infinity() { return of_bits(0x7ff0000000000000ull); }
    static METHOD double below() { return of_bits(0x07b0000000000000ull); }
    static METHOD double grow() { return of_bits(0x52b0000000000000ull); }
    static METHOD double shrink() { return of_bits(0x39b0000000000000ull); }
    static METHOD double even(double fourth) {
        return polynomial(
            fourth, -0.3333333333333307, -0.14285714282574818, -0.09090907002881665, -0.06666404050456302,
            -0.05253518429804105, -0.04219178299287726, -0.02990384814490461, -0.013900558059105383,
            -0.002884920692055098, -0.00015216122608927192
        );
    }
    static METHOD double odd(double fourth) {
        return polynomial(
            fourth, 0.19999999999951455, 0.11111111007018754, 0.07692279838232124, 0.05880527780148657,
            0.04722321888441468, 0.036641901183334705, 0.021984846192131976, 0.007196504774637391,
            0.0008313230949771489, 1.3225119973714734e-5
        );
    }
};
#define INTEGER 4503599627370496.0
DEVICE float root(float a) { return of_bits(0x54a21d2au - bits_of(a) / 3); }
DEVICE double root(double a) {
    double upper = of_bits(bits_of(a) >> 32 | bits_of(INTEGER)) - INTEGER;
    double third = (upper * (-1.0 / 3.0) + 1430186341.0) + INTEGER;
    return of_bits(bits_of(third) << 32);
}
template <class C> DEVICE C cbrt(C x) {
    typedef Constants<C> K;
    C size = abs(x);
    bool small = size < K::below();
    C a = small ? size * K::grow() : size;
    C r = root(a);
    for (int i = 0; i < K::ROUNDS; i++) {
        C e = fma(-(a * r), r * r, C(1));
        r = fma(r * e, polynomial(e, 1.0 / 3.0, 2.0 / 9.0, 14.0 / 81.0, 35.0 / 243.0), r);
    }
    C y = a * r * r;
    C square = y * y;
    C low = fma(y, y, -square);
    C residual = fma(low, y, fma(square, y, -a));
    y = fma(residual * (r * r), C(-1.0 / 3.0), y);
    y = small ? y * K::shrink() : y;
    return copysign(size < K::infinity() ? y : size, x);
}
DEVICE double split(double x, double& exponent) {
    u64 shifted = bits_of(x) - 0x3fe6a09e667f3bcdull + (1023ull << 52);
    exponent = of_bits(shifted >> 52 | bits_of(INTEGER)) - (INTEGER + 1023.0);
    return of_bits((shifted & 0xfffffffffffffull) + 0x3fe6a09e667f3bcdull);
}
DEVICE float power(float x, float y) {
    double exponent, m = split((double)x, exponent);
    double s = (m - 1.0) / (m + 1.0);
    double log = polynomial(
        s * s, 2.8853900817778495, 0.9617966941140668, 0.577077942167437, 0.41220927128720136, 0.3199049562008573,
        0.2829103261487664
    );
    double z = (double)y * fma(s, log, exponent);
    z = z < 200.0 ? z : 200.0;
    z = z > -200.0 ? z : -200.0;
    double shifted = z + (INTEGER + 1024.0);
    double rest = z - (shifted - (INTEGER + 1024.0));
    double exp = polynomial(
        rest, 0.9999999999594977, 0.6931471805349863, 0.2402265121420562, 0.05550410976245191, 0.009618025521324486,
        0.001333342253321634, 0.00015469757932756248, 1.5316488000245814e-05
    );
    return (float)(exp * of_bits((bits_of(shifted) - 1) << 52));
}
DEVICE double power(double x, double y) {
    const double E = 1.4426950408889634, E_LOW = 2.0355273740931033e-17, FAR = 1e21;
    const double LN_2 = 0.6931471805599453, LN_2_LOW = 2.3190468138462996e-17;
    const double THIRDS = 2.0 / 3.0, THIRDS_LOW = 3.700743415417188e-17;
    bool small = x < of_bits(0x0010000000000000ull);
    double exponent, m = split(small ? x * 18014398509481984.0 : x, exponent);
    exponent = small ? exponent - 54.0 : exponent;
    double below = m - 1.0;
    double above = m + 1.0;
    double above_low = m - (above - 1.0);
    double inverse = 1.0 / above;
    double s = below * inverse;
    double s_low = (fma(-s, above, below) - s * above_low) * inverse;
    double square = s * s;
    double square_low = fma(s + s, s_low, fma(s, s, -square));
    double more = square * polynomial(
        square, 0.4, 0.2857142857142857, 0.22222222222221955, 0.1818181818190132, 0.15384615370302457, 0.1333333482040947,
        0.11764608777901028, 0.10530323526932021, 0.09422627862442283, 0.10109325146243126
    );
    double factor = THIRDS + more;
    double factor_low = (THIRDS - factor) + more + THIRDS_LOW;
    double term = square * factor;
    double term_low = fma(square, factor, -term) + fma(square, factor_low, square_low * factor);
    double twice = 2.0 + term;
    double twice_low = (2.0 - twice) + term + term_low;
    double ln = s * twice;
    double ln_low = fma(s, twice, -ln) + fma(s, twice_low, s_low * twice);
    double log = ln * E;
    double log_low = fma(ln, E, -log) + fma(ln, E_LOW, ln_low * E);
    double sum = exponent + log;
    double sum_low = (exponent - sum) + log + log_low;
    y = y < FAR ? y : FAR;
    y = y > -FAR ? y : -FAR;
    double z = y * sum;
    double z_low = fma(y, sum, -z) + y * sum_low;
    bool inside = abs(z) < 1100.0;
    z_low = inside ? z_low : 0.0;
    z = inside ? z : copysign(1100.0, z);
    double shifted = z + (INTEGER + 2048.0);
    double rest = z - (shifted - (INTEGER + 2048.0));
    double r = rest + z_low;
    double r_low = (rest - r) + z_low;
    double first = r * LN_2;
    double first_low = fma(r, LN_2, -first) + fma(r, LN_2_LOW, r_low * LN_2);
    double one = 1.0 + first;
    double one_low = (1.0 - one) + first;
    double exp = polynomial(
        r, 0.24022650695910072, 0.0555041086648216, 0.00961812910762848, 0.0013333558146416916, 0.00015403530393365517,
        1.5252733829867717e-05, 1.32154868145624e-06, 1.0178062426650046e-07, 7.0548946264250776e-09,
        4.4549644164901565e-10, 2.5733606408496378e-11
    );
    double result = one + (one_low + fma(r * r, exp, first_low));
    u64 whole = bits_of(shifted) & 0xfffffffffffffull;
    u64 half = whole >> 1;
    return result * of_bits((half - 1) << 52) * of_bits((whole - half - 1) << 52);
}
template <class C> DEVICE C pow(C x, C y) {
    const C INFINITE = Constants<C>::infinity();
    C at_zero = y > C(0) ? C(0) : INFINITE, at_infinity = y > C(0) ? INFINITE : C(0);
    C result = x < INFINITE ? power(x, y) : at_infinity;
    result = y == C(1) ? x : result;
    result = x == C(0) ? at_zero : result;
    result = y == C(0) ? C(1) : result;
    result = x >= C(0) ? result : C(0) / C(0);
    result = y == C(0.5) ? sqrt(x) : result;
    return result + (y - y);
}
template <class C> DEVICE C atan2(C y, C x) {
    const C HALF = C(1.5707963267948966);
    const C HALF_LOW = C((1.5707963267948966 - (double)HALF) + 6.123233995736766e-17);
    C a = abs(y), b = abs(x);
    bool steep = a > b;
    C large = steep ? a : b, small = steep ? b : a;
    C diagonal = large > C(0) ? C(1) : C(0);
    C t = large == small ? diagonal : small / large;
    C square = t * t;
    C fourth = square * square;
    C series = fma(Constants<C>::odd(fourth), square, Constants<C>::even(fourth));
    C halves = steep ? C(1) : C(0), sign = steep ? C(-1) : C(1);
    bool back = copysign(C(1), x) < C(0);
    halves = back ? C(2) - halves : halves;
    sign = back ? -sign : sign;
    C angle = t + fma(halves * HALF_LOW, sign, t * square * series);
    return copysign(fma(sign, angle, halves * HALF), y);
}
#undef INTEGER

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
DEVICE double neutral(int form) { return form == MAX ? -Constants<double>::infinity() : 0.0; }
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
