// Passes: kernels over the elements of arrays. P, G and S are the types of parameters, gradients and states; T is a stage
// that source.rs has written, with the sums that a kernel makes. Sums have the shapes of reduce.rs and stages.rs.
namespace schuss {

template <class T, int V> struct alignas(V * sizeof(T)) Pack { T at[V]; };

// Where the streams of an array begin.
template <class T> struct Streams {
    P* p;
    G* g;
    S* s[T::STATES + 1];
    void* const* pointers;

    METHOD Streams(const Args& args, const Array& array, u32 number) {
        pointers = args.pointers + array.pointers;
        p = T::PARAM ? (P*)get(pointers) : nullptr;
        g = T::GRAD ? (G*)get(args.grads + number) : nullptr;
        for (int k = 0; k < T::STATES; k++) s[k] = (S*)get(pointers + 1 + k);
    }
};

// Computes one element.
template <class T> DEVICE void compute(T& one, const Streams<T>& at, const Array& array, u64 i) {
    if (T::PARAM) one.p = (F)load(get(at.p + i));
    if (T::GRAD) one.g = (F)load(get(at.g + i));
    F states[T::STATES + 1];
    for (int k = 0; k < T::STATES; k++) states[k] = T::READS >> k & 1 ? (F)load(get(at.s[k] + i)) : F();
    one.In(states);
    if (T::OPERANDS) one.Operands(at.pointers, array, place_of(array, i));
    one.Text();
}

// Stores it.
template <class T> DEVICE void keep(T& one, const Streams<T>& at, u64 i, bool zero) {
    if (T::WRITES_PARAM) {
        P p;
        store(p, one.p);
        put(at.p + i, p);
    }
    F states[T::STATES + 1];
    one.Out(states);
    for (int k = 0; k < T::STATES; k++) {
        if (!(T::WRITES >> k & 1)) continue;
        S s;
        store(s, states[k]);
        put(at.s[k] + i, s);
    }
    if (T::GRAD && zero) put(at.g + i, G());
}

// The same for V neighbours that are read and written together.
template <int V, class T>
DEVICE void together(T& one, const Streams<T>& at, const Array& array, u64 i, bool zero) {
    Pack<P, V> p = {};
    Pack<G, V> g = {};
    Pack<S, V> s[T::STATES + 1];
    if (T::PARAM) p = get((const Pack<P, V>*)(at.p + i));
    if (T::GRAD) g = get((const Pack<G, V>*)(at.g + i));
    for (int k = 0; k < T::STATES; k++) {
        if (T::READS >> k & 1) s[k] = get((const Pack<S, V>*)(at.s[k] + i));
    }
    for (int v = 0; v < V; v++) {
        F states[T::STATES + 1];
        for (int k = 0; k < T::STATES; k++) states[k] = T::READS >> k & 1 ? (F)load(s[k].at[v]) : F();
        if (T::PARAM) one.p = (F)load(p.at[v]);
        if (T::GRAD) one.g = (F)load(g.at[v]);
        one.In(states);
        if (T::OPERANDS) one.Operands(at.pointers, array, place_of(array, i + v));
        one.Text();
        one.Out(states);
        if (T::WRITES_PARAM) store(p.at[v], one.p);
        for (int k = 0; k < T::STATES; k++) {
            if (T::WRITES >> k & 1) store(s[k].at[v], states[k]);
        }
    }
    if (T::WRITES_PARAM) put((Pack<P, V>*)(at.p + i), p);
    for (int k = 0; k < T::STATES; k++) {
        if (T::WRITES >> k & 1) put((Pack<S, V>*)(at.s[k] + i), s[k]);
    }
    if (T::GRAD && zero) put((Pack<G, V>*)(at.g + i), Pack<G, V>{});
}

// A pass without sums: CHUNK elements.
template <class T> DEVICE void elements(const Args& args) {
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    const Streams<T> at(args, array, chunk.array);
    T one;
    one.Scalars(args, array);
    bool aligned = (!T::PARAM || (u64)at.p % (4 * sizeof(P)) == 0) && (!T::GRAD || (u64)at.g % (4 * sizeof(G)) == 0);
    for (int k = 0; k < T::STATES; k++) {
        aligned = aligned && (!(T::READS >> k & 1) || (u64)at.s[k] % (4 * sizeof(S)) == 0);
    }
    u64 i = (u64)chunk.index * CHUNK, end = least(i + CHUNK, array.len);
    if (aligned) {
        u64 whole = i + (end - i) / 4 * 4;
        for (u64 k = i + threadIdx.x * 4; k < whole; k += THREADS * 4) together<4>(one, at, array, k, args.zero);
        i = whole;
    }
    for (i += threadIdx.x; i < end; i += THREADS) together<1>(one, at, array, i, args.zero);
}

// What a thread has of the sums of a stage: for a fast one also its float32 lanes.
template <class T> struct Sums {
    double sum[T::SUMS];
    float fast[T::SUMS][4];

    METHOD Sums() {
        for (int k = 0; k < T::SUMS; k++) {
            sum[k] = neutral(T::Form(k));
            for (int j = 0; j < 4; j++) fast[k][j] = 0.0f;
        }
    }
    METHOD void add(const T& one, int j) {
        F left[T::SUMS], right[T::SUMS];
        one.Terms(left, right);
        for (int k = 0; k < T::SUMS; k++) {
            double x = (double)left[k];
            if (T::Form(k) == PLAIN) sum[k] += x;
            if (T::Form(k) == SQUARE || T::Form(k) == FAST) sum[k] += x * x;
            if (T::Form(k) == FAST) fast[k][j] += (float)left[k] * (float)left[k];
            if (T::Form(k) == PRODUCT) sum[k] += x * (double)right[k];
            if (T::Form(k) == MAX) sum[k] = max(sum[k], x);
        }
    }
};

// Adds the lanes of each LANES threads in a fixed tree; the first of them then has the sum.
DEVICE void add_lanes(double* lanes, int form) {
    for (u32 width = LANES / 2; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x % LANES < width) {
            lanes[threadIdx.x] = combine(form, lanes[threadIdx.x], lanes[threadIdx.x + width]);
        }
    }
    __syncthreads();
}

// Reduces what LANES threads have, for the first of them; all threads take part.
template <class T> DEVICE void reduce(const Sums<T>& sums, double* result) {
    SHARED double lanes[THREADS];
    for (int k = 0; k < T::SUMS; k++) {
        lanes[threadIdx.x] = sums.sum[k];
        add_lanes(lanes, T::Form(k));
        result[k] = lanes[threadIdx.x];
        if (T::Form(k) != FAST) continue;
        const float* fast = sums.fast[k];
        __syncthreads();
        lanes[threadIdx.x] = ((double)fast[0] + (double)fast[2]) + ((double)fast[1] + (double)fast[3]);
        add_lanes(lanes, FAST);
        double total = lanes[threadIdx.x];
        // Where float32 overflows or loses what is small, float64 decides.
        if (total >= 0x1p-100 && total < 1.0 / 0.0) result[k] = total;
    }
    __syncthreads();
}

// Elements `i` to `end`, which LANES threads take in turn.
template <class T>
DEVICE void deal(T& one, const Streams<T>& at, const Array& array, u64 i, u64 end, bool stores, bool zero, Sums<T>& sums) {
    for (i += threadIdx.x % LANES; i < end; i += 4 * LANES) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u64 k = i + j * LANES;
            if (k >= end) break;
            compute(one, at, array, k);
            sums.add(one, j);
            if (stores) keep(one, at, k, zero);
        }
    }
}

#if FINITE
// Where the first gradient is that is not finite.
DEVICE void check_finite(const Args& args, const Array& array, const G* gradients, u64 i, u64 end) {
    u64 found = ~0ull;
    for (i += threadIdx.x % LANES; i < end; i += LANES) {
        F x = (F)load(get(gradients + i));
        if (!(x - x == F(0)) && found == ~0ull) found = array.block * BLOCK + i;
    }
    if (found != ~0ull) atomicMin(args.nonfinite, found);
}
#endif

// A pass that is summed up over blocks: CHUNK elements.
template <class T> DEVICE void blocks(const Args& args) {
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    const Streams<T> at(args, array, chunk.array);
    T one;
    one.Scalars(args, array);
    u64 block = (u64)chunk.index * (CHUNK / BLOCK) + threadIdx.x / LANES;
    u64 start = block * BLOCK, end = least(start + BLOCK, array.len);
    Sums<T> sums;
    deal(one, at, array, start, end, true, args.zero, sums);
#if FINITE
    check_finite(args, array, at.g, start, end);
#endif
    double result[T::SUMS];
    reduce(sums, result);
    if (threadIdx.x % LANES == 0 && start < end) {
        for (int k = 0; k < T::SUMS; k++) put(args.partials + (T::FIRST + k) * args.stride + array.block + block, result[k]);
    }
}

// A pass that is summed up over cells: up to THREADS / LANES pieces of one.
template <class T> DEVICE void pieces(const Args& args) {
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    const Streams<T> at(args, array, chunk.array);
    T one;
    one.Scalars(args, array);
    u64 of_cell = over_up(array.pieces, THREADS / LANES), cell = over(chunk.index, of_cell);
    u64 piece = (chunk.index - cell * of_cell) * (THREADS / LANES) + threadIdx.x / LANES;
    u64 row, last, col = 0, width = array.cols;
    if (array.together > 1) {
        row = cell * array.together * array.rows;
        last = least(row + array.together * array.rows, array.batch * array.rows);
    } else {
        u64 strips = over_up(array.cols, STRIP), panel = over(cell, strips), matrix = over(panel, array.panels);
        col = (cell - panel * strips) * STRIP;
        width = least(STRIP, array.cols - col);
        row = matrix * array.rows + (panel - matrix * array.panels) * array.panel;
        last = least(row + array.panel, (matrix + 1) * array.rows);
    }
    u64 start, end;
    if (array.cols <= SHORT) {
        u64 rows = over(BLOCK, array.cols);
        row += piece * rows;
        start = row * array.cols;
        end = least(row + rows, last) * array.cols;
    } else {
        u64 of_row = over_up(width, BLOCK), within = over(piece, of_row);
        u64 k = (piece - within * of_row) * BLOCK;
        row += within;
        start = row * array.cols + col + k;
        end = start + least(BLOCK, width - k);
    }
    if (row >= last || piece >= array.pieces) end = start;
    Sums<T> sums;
    deal(one, at, array, start, end, true, args.zero, sums);
    double result[T::SUMS];
    reduce(sums, result);
    if (threadIdx.x % LANES == 0 && start < end) {
        u64 place = array.piece + cell * array.pieces + piece;
        for (int k = 0; k < T::SUMS; k++) put(args.pieces + k * args.piece_stride + place, result[k]);
    }
}

// The sums of cells from those of their pieces: THREADS cells.
template <class T> DEVICE void cells(const Args& args) {
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    u64 cell = (u64)chunk.index * THREADS + threadIdx.x;
    if (cell >= array.cells) return;
    u64 count;
    if (array.together > 1) {
        u64 rows = least(array.together * array.rows, (array.batch - cell * array.together) * array.rows);
        count = array.cols <= SHORT ? over_up(rows, over(BLOCK, array.cols)) : rows * over_up(array.cols, BLOCK);
    } else {
        u64 strips = over_up(array.cols, STRIP), panel = over(cell, strips), matrix = over(panel, array.panels);
        u64 width = least(STRIP, array.cols - (cell - panel * strips) * STRIP);
        u64 rows = least(array.panel, array.rows - (panel - matrix * array.panels) * array.panel);
        count = array.cols <= SHORT ? over_up(rows, over(BLOCK, array.cols)) : rows * over_up(width, BLOCK);
    }
    for (int k = 0; k < T::SUMS; k++) {
        const double* piece = args.pieces + k * args.piece_stride + array.piece + cell * array.pieces;
        double sum = neutral(T::Form(k));
        for (u64 i = 0; i < count; i++) sum = combine(T::Form(k), sum, get(piece + i));
        put(args.partials + (T::FIRST + k) * args.stride + array.cell + cell, sum);
    }
}

// Rows or columns of matrices that lie interleaved: a thread sums up one, THREADS of them.
template <class T> DEVICE void sums_interleaved(T& one, const Streams<T>& at, const Array& array, u64 index) {
    u64 place = index * THREADS + threadIdx.x, row = over(place, array.interleaved);
    if (row >= array.batch * array.rows) return;
    double total[T::SUMS];
    for (int k = 0; k < T::SUMS; k++) total[k] = neutral(T::Form(k));
    u64 col = place - row * array.interleaved;
    for (u64 first = 0; first < array.cols; first += STRIP) {
        Sums<T> sums;
        for (; col < least(first + STRIP, array.cols); col += array.interleaved) {
            compute(one, at, array, row * array.cols + col);
            sums.add(one, 0);
        }
        for (int k = 0; k < T::SUMS; k++) total[k] = combine(T::Form(k), total[k], sums.sum[k]);
    }
    double count = (double)(array.cols / array.interleaved);
    for (int k = 0; k < T::SUMS; k++) {
        put((F*)get(at.pointers + T::Vector(k)) + place, (F)(total[k] / (T::Mean(k) ? count : 1.0)));
    }
}

// Rows or columns whose elements lie one behind the other. Each has as many groups of LANES threads as it has pieces, up to
// all of the block.
template <class T> DEVICE void sums_along(const Args& args) {
    SHARED double parts[T::SUMS][THREADS / LANES];
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    const Streams<T> at(args, array, chunk.array);
    T one;
    one.Scalars(args, array);
    if (array.interleaved > 1) {
        sums_interleaved(one, at, array, chunk.index);
        return;
    }
    u64 count = over_up(array.cols, BLOCK);
    u32 width = 1, group = threadIdx.x / LANES;
    while (width < count && width < THREADS / LANES) width *= 2;
    u64 row = (u64)chunk.index * (THREADS / LANES / width) + group / width, rows = array.batch * array.rows;
    double strip[T::SUMS], total[T::SUMS];
    for (int k = 0; k < T::SUMS; k++) strip[k] = total[k] = neutral(T::Form(k));
    for (u64 first = 0; first < count; first += width) {
        u64 col = (first + group % width) * BLOCK;
        u64 start = row * array.cols + col, end = row < rows && col < array.cols ? start + least(BLOCK, array.cols - col) : start;
        Sums<T> sums;
        deal(one, at, array, start, end, false, false, sums);
        double result[T::SUMS];
        reduce(sums, result);
        if (threadIdx.x % LANES == 0) {
            for (int k = 0; k < T::SUMS; k++) parts[k][group] = result[k];
        }
        __syncthreads();
        if (threadIdx.x % LANES == 0 && group % width == 0) {
            for (u32 w = 0; w < width && first + w < count; w++) {
                for (int k = 0; k < T::SUMS; k++) {
                    strip[k] = combine(T::Form(k), strip[k], parts[k][group + w]);
                    if ((first + w + 1) % (STRIP / BLOCK) == 0 || first + w + 1 == count) {
                        total[k] = combine(T::Form(k), total[k], strip[k]);
                        strip[k] = neutral(T::Form(k));
                    }
                }
            }
        }
        __syncthreads();
    }
    if (threadIdx.x % LANES == 0 && group % width == 0 && row < rows) {
        for (int k = 0; k < T::SUMS; k++) {
            put((F*)get(at.pointers + T::Vector(k)) + row, (F)(total[k] / (T::Mean(k) ? (double)array.cols : 1.0)));
        }
    }
}

// Rows or columns whose elements lie a row apart: a thread sums up one column of a panel, THREADS of them.
template <class T> DEVICE void sums_across(const Args& args) {
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    const Streams<T> at(args, array, chunk.array);
    u64 place = (u64)chunk.index * THREADS + threadIdx.x;
    if (place >= array.batch * array.panels * array.cols) return;
    T one;
    one.Scalars(args, array);
    u64 panel = over(place, array.cols), col = place - panel * array.cols;
    u64 matrix = over(panel, array.panels), row = (panel - matrix * array.panels) * array.panel;
    u64 last = least(row + array.panel, array.rows);
    Sums<T> sums;
    for (; row < last; row++) {
        compute(one, at, array, (matrix * array.rows + row) * array.cols + col);
        sums.add(one, 0);
    }
    for (int k = 0; k < T::SUMS; k++) put(args.columns + k * args.column_stride + array.column + place, sums.sum[k]);
}

// Their panels in order: THREADS columns.
template <class T> DEVICE void panels(const Args& args) {
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    u64 place = (u64)chunk.index * THREADS + threadIdx.x;
    if (place >= array.batch * array.cols) return;
    u64 matrix = over(place, array.cols), col = place - matrix * array.cols;
    void* const* pointers = args.pointers + array.pointers;
    for (int k = 0; k < T::SUMS; k++) {
        const double* from = args.columns + k * args.column_stride + array.column + matrix * array.panels * array.cols + col;
        double sum = get(from);
        for (u64 i = 1; i < array.panels; i++) sum = combine(T::Form(k), sum, get(from + i * array.cols));
        put((F*)get(pointers + T::Vector(k)) + place, (F)(sum / (T::Mean(k) ? (double)array.rows : 1.0)));
    }
}

// A text over rows or columns without sums: THREADS of them.
template <class T> DEVICE void numbers(const Args& args) {
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    u64 i = (u64)chunk.index * THREADS + threadIdx.x;
    if (i >= vector_length(array, T::ROW)) return;
    T one;
    one.Scalars(args, array);
    one.In(args.pointers + array.pointers, i);
    one.Text();
    one.Out(args.pointers + array.pointers, i);
}

// The same for matrices that lie interleaved, `count` numbers from `first`: a thread takes all of a matrix.
template <class T>
DEVICE void interleaved_matrices(
    const Args& args, T& one, void* const* pointers, const Array& array, u64 first, u64 count, u64 run
) {
    u64 step = array.interleaved;
    double of_one = (double)over(count, step);
    for (u64 start = threadIdx.x; start < step; start += THREADS) {
        Sums<T> sums;
        for (u64 i = start; i < count; i += step) {
            one.In(pointers, first + i);
            one.Text();
            one.Out(pointers, first + i);
            sums.add(one, 0);
        }
        for (int k = 0; k < T::SUMS; k++) {
            double sum = combine(T::Form(k), neutral(T::Form(k)), sums.sum[k]);
            if (T::Run(k) >= 0) put(args.runs + T::Run(k) * args.run_stride + array.run + run * step + start, sum);
            if (T::Vector(k) < 0) continue;
            F x = (F)(sum / (T::Mean(k) ? of_one : 1.0));
            for (u64 i = start; i < count; i += step) put((F*)get(pointers + T::Vector(k)) + first + i, x);
        }
    }
}

// A text over the rows or columns of a matrix, or of all matrices of an array, and its sums.
template <class T> DEVICE void matrices(const Args& args) {
    SHARED double parts[T::SUMS][THREADS / LANES];
    SHARED double results[T::SUMS];
    const Chunk chunk = get(args.chunks + blockIdx.x);
    const Array array = get(args.arrays + chunk.array);
    void* const* pointers = args.pointers + array.pointers;
    T one;
    one.Scalars(args, array);
    u64 all = vector_length(array, T::ROW), count = T::BY_MATRIX ? over(all, array.batch) : all, first = chunk.index * count;
    if (T::BY_MATRIX && array.interleaved > 1) {
        interleaved_matrices(args, one, pointers, array, first, count, chunk.index);
        return;
    }
    u32 group = threadIdx.x / LANES;
    double total[T::SUMS];
    for (int k = 0; k < T::SUMS; k++) total[k] = neutral(T::Form(k));
    for (u64 start = 0; start < count; start += THREADS / LANES * BLOCK) {
        u64 i = start + group * BLOCK, end = least(i + BLOCK, count);
        Sums<T> sums;
        for (i += threadIdx.x % LANES; i < end; i += 4 * LANES) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u64 k = i + j * LANES;
                if (k >= end) break;
                one.In(pointers, first + k);
                one.Text();
                one.Out(pointers, first + k);
                sums.add(one, j);
            }
        }
        double result[T::SUMS];
        reduce(sums, result);
        if (threadIdx.x % LANES == 0) {
            for (int k = 0; k < T::SUMS; k++) parts[k][group] = result[k];
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            for (u32 w = 0; w < THREADS / LANES && start + w * BLOCK < count; w++) {
                for (int k = 0; k < T::SUMS; k++) total[k] = combine(T::Form(k), total[k], parts[k][w]);
            }
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        for (int k = 0; k < T::SUMS; k++) {
            results[k] = total[k];
            if (T::Run(k) >= 0) put(args.runs + T::Run(k) * args.run_stride + array.run + chunk.index, total[k]);
        }
    }
    __syncthreads();
    for (int k = 0; k < T::SUMS; k++) {
        if (T::Vector(k) < 0) continue;
        F x = (F)(results[k] / (T::Mean(k) ? (double)count : 1.0));
        for (u64 i = threadIdx.x; i < count; i += THREADS) put((F*)get(pointers + T::Vector(k)) + first + i, x);
    }
}

} // namespace schuss
