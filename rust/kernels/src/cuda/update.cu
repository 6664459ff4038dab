namespace schuss {

template <class T, int V> struct alignas(V * sizeof(T)) Pack { T at[V]; };

// An element of an array: prologue and update. `i` is its place, for the mean of its row.
template <class R>
DEVICE F step(const Args& args, const Array& array, u64 i, F p, F g, F* states, F* scalars, F factor) {
#if CENTERED
    u64 row = array.strided ? i % array.rows : i / (array.len / array.rows);
    g = g * factor - ((const F*)args.means)[array.row + row];
#endif
    prologue(p, g, scalars);
    R::update(p, g, states, scalars);
    return p;
}

DEVICE void read_scalars(const Args& args, const Chunk& chunk, F* scalars, F& factor) {
    for (int k = 0; k < 3 + Rule::SCALARS; k++) scalars[k] = value(args.scalars[k], F());
    factor = gradient_factor(args);
#if !CENTERED
    scalars[0] *= factor;
#endif
}

template <int V>
DEVICE void elements(const Args& args, const Array& array, void* gradients, u64 i, F* scalars, F factor) {
    typedef Pack<P, V> PackP;
    typedef Pack<G, V> PackG;
    typedef Pack<S, V> PackS;
    PackP p = get((const PackP*)((P*)array.param + i));
    PackG g = {};
    if (Rule::READS_GRADIENT) g = get((const PackG*)((G*)gradients + i));
    PackS s[Rule::STATES + 1];
    for (int k = 0; k < Rule::STATES; k++) s[k] = get((const PackS*)((S*)array.states[k] + i));
    for (int v = 0; v < V; v++) {
        F states[Rule::STATES + 1];
        for (int k = 0; k < Rule::STATES; k++) states[k] = (F)load(s[k].at[v]);
        F gradient = Rule::READS_GRADIENT ? (F)load(g.at[v]) : F();
        store(p.at[v], step<Rule>(args, array, i + v, (F)load(p.at[v]), gradient, states, scalars, factor));
        if (Rule::WRITES_STATES) {
            for (int k = 0; k < Rule::STATES; k++) store(s[k].at[v], states[k]);
        }
    }
    put((PackP*)((P*)array.param + i), p);
    if (Rule::WRITES_STATES) {
        for (int k = 0; k < Rule::STATES; k++) put((PackS*)((S*)array.states[k] + i), s[k]);
    }
    if (args.after == ZERO) put((PackG*)((G*)gradients + i), PackG{});
    if (args.after == COPY) put((PackP*)((P*)gradients + i), p);
}

} // namespace schuss

KERNEL(update) {
    using namespace schuss;
    const Chunk chunk = args.chunks[blockIdx.x];
    const Array array = args.arrays[chunk.array];
    void* gradients = args.grads[chunk.array];
    F scalars[3 + Rule::SCALARS], factor;
    read_scalars(args, chunk, scalars, factor);
#if LAYERWISE
    scalars[3] = ((const F*)args.ratios)[chunk.array];
#endif
    bool aligned = (u64)array.param % (4 * sizeof(P)) == 0 && (u64)gradients % (4 * sizeof(G)) == 0;
    for (int k = 0; k < Rule::STATES; k++) aligned = aligned && (u64)array.states[k] % (4 * sizeof(S)) == 0;
    u64 i = (u64)chunk.index * CHUNK, end = end_of(array, chunk);
    if (aligned) {
        u64 whole = i + (end - i) / 4 * 4;
        for (u64 at = i + threadIdx.x * 4; at < whole; at += THREADS * 4) {
            elements<4>(args, array, gradients, at, scalars, factor);
        }
        i = whole;
    }
    for (i += threadIdx.x; i < end; i += THREADS) elements<1>(args, array, gradients, i, scalars, factor);
}

#if LAYERWISE
// The first phase: states, and the sums of squares of parameter and direction for each block.
KERNEL(measure) {
    using namespace schuss;
    SHARED double of_param[THREADS];
    SHARED double of_direction[THREADS];
    const Chunk chunk = args.chunks[blockIdx.x];
    const Array array = args.arrays[chunk.array];
    const G* gradients = (const G*)args.grads[chunk.array];
    F scalars[3 + Rule::SCALARS], factor;
    read_scalars(args, chunk, scalars, factor);
    u64 block = (u64)chunk.index * (CHUNK / BLOCK) + threadIdx.x / LANES;
    u64 end = end_of(array, chunk);
    double p_sum = 0.0, d_sum = 0.0;
    for (u64 i = block * BLOCK + threadIdx.x % LANES; i < end && i < (block + 1) * BLOCK; i += LANES) {
        F p = (F)load(get((const P*)array.param + i));
        F g = Direction::READS_GRADIENT ? (F)load(get(gradients + i)) : F();
        F states[Direction::STATES + 1];
        for (int k = 0; k < Direction::STATES; k++) states[k] = (F)load(get((const S*)array.states[k] + i));
        p_sum += (double)p * (double)p;
        p = step<Direction>(args, array, i, p, g, states, scalars, factor);
        d_sum += (double)p * (double)p;
        if (Direction::WRITES_STATES) {
            for (int k = 0; k < Direction::STATES; k++) {
                S s;
                store(s, states[k]);
                put((S*)array.states[k] + i, s);
            }
        }
    }
    of_param[threadIdx.x] = p_sum;
    of_direction[threadIdx.x] = d_sum;
    add_lanes(of_param);
    add_lanes(of_direction);
    if (threadIdx.x % LANES == 0 && block * BLOCK < end) {
        args.partials[array.block + block] = of_param[threadIdx.x];
        args.partials[args.blocks + array.block + block] = of_direction[threadIdx.x];
    }
}

// Between the phases: the ratio of each array, `chunks` being one entry an array.
KERNEL(ratio) {
    using namespace schuss;
    SHARED double numbers[2][THREADS];
    SHARED double norms[2];
    const Chunk chunk = args.chunks[blockIdx.x];
    const Array array = args.arrays[chunk.array];
    u64 blocks = (array.len + BLOCK - 1) / BLOCK;
    for (u32 k = 0; k < 2; k++) {
        double sum = add_in_order(args.partials + k * args.blocks + array.block, blocks, 32 * k, numbers[k]);
        if (threadIdx.x == 32 * k) norms[k] = schuss::sqrt(sum);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double scalars[3 + Rule::SCALARS];
        for (int k = 0; k < 3 + Rule::SCALARS; k++) scalars[k] = value(args.scalars[k], double());
        ((F*)args.ratios)[chunk.array] = (F)Rule::ratio(norms[0], norms[1], scalars);
    }
}
#endif
