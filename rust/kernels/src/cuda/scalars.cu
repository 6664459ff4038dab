// Scalar stages over one array or all arrays, in float64 on one thread, and the reductions before them. Knows no rule.
namespace schuss {

// A thread's sum or maximum of numbers, in order. Sixteen are read before the first is added: each addition waits for the one
// before it, and should not wait for memory too.
template <int FORM> DEVICE double folded(double sum, const double* numbers, u32 count) {
    u32 whole = count / 16 * 16;
    for (u32 i = 0; i < whole; i += 16) {
        double next[16];
        for (int k = 0; k < 16; k++) next[k] = numbers[i + k];
        for (int k = 0; k < 16; k++) sum = combine(FORM, sum, next[k]);
    }
    for (u32 i = whole; i < count; i++) sum = combine(FORM, sum, numbers[i]);
    return sum;
}

// Reduces up to eight arrays of numbers, a stride apart, in order, each in its own thread; all threads must call it.
template <int N> DEVICE void fold(const double* numbers, u64 stride, u64 n, int largest, double* found) {
    SHARED double here[N][THREADS];
    u32 own = threadIdx.x / 32;
    bool folds = threadIdx.x % 32 == 0 && own < N;
    int form = largest >> own & 1 ? MAX : PLAIN;
    double sum = neutral(form);
    for (u64 at = 0; at < n; at += THREADS) {
        u32 count = (u32)least(THREADS, n - at);
        __syncthreads();
        for (int k = 0; k < N; k++) {
            if (threadIdx.x < count) here[k][threadIdx.x] = get(numbers + k * stride + at + threadIdx.x);
        }
        __syncthreads();
        if (folds) sum = form == MAX ? folded<MAX>(sum, here[own], count) : folded<PLAIN>(sum, here[own], count);
    }
    if (folds) found[own] = sum;
    __syncthreads();
}

// Stores a state with the canonical NaN.
DEVICE void put_state(double* at, double x) {
    double kept;
    store(kept, x);
    put(at, kept);
}

} // namespace schuss
