// The sum of squares of gradients for each block, and where the first one is that is not finite.
KERNEL(squares) {
    using namespace schuss;
    SHARED double lanes[THREADS];
    const Chunk chunk = args.chunks[blockIdx.x];
    const Array array = args.arrays[chunk.array];
    const G* gradients = (const G*)args.grads[chunk.array];
    u64 block = (u64)chunk.index * (CHUNK / BLOCK) + threadIdx.x / LANES;
    u64 end = end_of(array, chunk), found = ~0ull;
    double sum = 0.0;
    for (u64 i = block * BLOCK + threadIdx.x % LANES; i < end && i < (block + 1) * BLOCK; i += LANES) {
        double x = (double)(F)load(get(gradients + i));
        if (!(x - x == 0.0) && found == ~0ull) found = array.block * BLOCK + i;
        sum += x * x;
    }
    if (found != ~0ull) atomicMin(&args.total->nonfinite, found);
    lanes[threadIdx.x] = sum;
    add_lanes(lanes);
    if (threadIdx.x % LANES == 0 && block * BLOCK < end) args.partials[array.block + block] = lanes[threadIdx.x];
}

// As clip_factor in norm.rs, from the partial sums of all arrays in order.
KERNEL(total) {
    using namespace schuss;
    SHARED double numbers[THREADS];
    double sum = add_in_order(args.partials, args.blocks, 0, numbers);
    if (threadIdx.x == 0) {
        double norm = schuss::sqrt(sum) / args.grad_scale;
        double coefficient = args.max_norm / (norm + 1e-6);
        args.total->sum = sum;
        args.total->norm = norm;
        args.total->factor = (coefficient >= 1.0 ? 1.0 : coefficient) / args.grad_scale;
        args.total->factor32 = (float)args.total->factor;
    }
}

// The mean of a row of the gradient times its factor, `chunks` being one entry a row.
KERNEL(means) {
    using namespace schuss;
    SHARED double lanes[THREADS];
    const Chunk chunk = args.chunks[blockIdx.x];
    const Array array = args.arrays[chunk.array];
    const G* gradients = (const G*)args.grads[chunk.array];
    u64 length = array.len / array.rows, row = chunk.index;
    F factor = gradient_factor(args);
    double sum = 0.0;
    for (u64 first = 0; first < length; first += CHUNK) {
        u64 block = first + threadIdx.x / LANES * BLOCK;
        double own = 0.0;
        for (u64 k = block + threadIdx.x % LANES; k < length && k < block + BLOCK; k += LANES) {
            G g = get(gradients + (array.strided ? k * array.rows + row : row * length + k));
            own += (double)((F)load(g) * factor);
        }
        lanes[threadIdx.x] = own;
        add_lanes(lanes);
        if (threadIdx.x == 0) {
            for (u32 b = 0; b < THREADS / LANES && first + b * BLOCK < length; b++) sum += lanes[b * LANES];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) ((F*)args.means)[array.row + row] = (F)(sum / (double)length);
}
