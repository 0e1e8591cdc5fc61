// The passes of a fine grid's transform, each a read and a write of what is not zero, along lines of N values.
//
// Images are [coil][z][y][x], grids [z][y][coil][x] in FFT order (voxel r at cell r mod n); two axes are three with
// z = 1. The first pass multiplies by maps and pads, the last crops and sums over coils, and the middle one of a
// convolution multiplies and returns at once. Cells of padding are neither read nor, where nobody needs them, written.
//
// A line is transformed by THREADS threads that keep their values in registers and exchange them in shared memory:
// Stockham's order, so that nothing is reversed (doi:10.1109/PROC.1967.5957). There is only exp(−i): an inverse is the
// conjugate's conjugate.
#include "common.cuh"
#include "grid.cuh"

template <int N>
constexpr int THREADS = N == 1152 ? 128 : (N + 7) / 8;  // of a line; with more of 1152 the compiler spills for sm_100

template <int N>
constexpr int COLUMNS = N <= 640 ? 8 : 4;  // neighbours of a block: 64 bytes, or 32, are moved at once

template <int N>
constexpr int ROWS = (256 + THREADS<N> - 1) / THREADS<N>;  // lines of a block along x

__host__ __device__ constexpr int radix_of(int left) {
    return left % 5 == 0 ? 5 : left % 3 == 0 ? 3 : left % 8 == 0 && left != 16 ? 8 : left % 4 == 0 ? 4 : 2;
}

// Where a line's value lies in shared memory: eight neighbours, then a gap, so that strides of 8 meet no bank twice.
__host__ __device__ constexpr int padded(int i) { return i + i / 8; }

__device__ inline float2 plus(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
__device__ inline float2 minus(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }
__device__ inline float2 quarter(float2 a) { return make_float2(a.y, -a.x); }  // −i a
__device__ inline float2 conjugate(float2 a) { return make_float2(a.x, -a.y); }

__device__ inline void dft(float2 (&v)[2]) {
    const float2 difference = minus(v[0], v[1]);
    v[0] = plus(v[0], v[1]);
    v[1] = difference;
}

__device__ inline void dft(float2 (&v)[3]) {
    const float2 sum = plus(v[1], v[2]);
    const float2 side = quarter(scaled(minus(v[1], v[2]), 0.866025404f));
    float2 middle = v[0];
    add_scaled(middle, sum, -0.5f);
    v[0] = plus(v[0], sum);
    v[1] = plus(middle, side);
    v[2] = minus(middle, side);
}

__device__ inline void dft(float2 (&v)[4]) {
    const float2 a = plus(v[0], v[2]), b = minus(v[0], v[2]);
    const float2 c = plus(v[1], v[3]), d = quarter(minus(v[1], v[3]));
    v[0] = plus(a, c);
    v[1] = plus(b, d);
    v[2] = minus(a, c);
    v[3] = minus(b, d);
}

__device__ inline void dft(float2 (&v)[5]) {
    constexpr float c1 = 0.309016994f, c2 = -0.809016994f, s1 = 0.951056516f, s2 = 0.587785252f;
    const float2 a = plus(v[1], v[4]), b = plus(v[2], v[3]), c = minus(v[1], v[4]), d = minus(v[2], v[3]);
    float2 near = v[0], far = v[0];
    add_scaled(near, a, c1);
    add_scaled(near, b, c2);
    add_scaled(far, a, c2);
    add_scaled(far, b, c1);
    const float2 beside = quarter(plus(scaled(c, s1), scaled(d, s2)));
    const float2 behind = quarter(minus(scaled(c, s2), scaled(d, s1)));
    v[0] = plus(v[0], plus(a, b));
    v[1] = plus(near, beside);
    v[2] = plus(far, behind);
    v[3] = minus(far, behind);
    v[4] = minus(near, beside);
}

__device__ inline void dft(float2 (&v)[8]) {
    constexpr float half = 0.707106781f;
    float2 even[4] = {v[0], v[2], v[4], v[6]}, odd[4] = {v[1], v[3], v[5], v[7]};
    dft(even);
    dft(odd);
    odd[1] = scaled(plus(odd[1], quarter(odd[1])), half);
    odd[2] = quarter(odd[2]);
    odd[3] = scaled(minus(quarter(odd[3]), odd[3]), half);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        v[k] = plus(even[k], odd[k]);
        v[k + 4] = minus(even[k], odd[k]);
    }
}

// values[j] exp(−2πi jk / (DONE · RADIX)); `roots` are the powers of exp(−2πi / N), of which one is read.
template <int N, int DONE, int RADIX>
__device__ inline void turn(float2 (&values)[RADIX], const float2* __restrict__ roots, int k) {
    if constexpr (DONE > 1) {
        float2 powers[RADIX];
        powers[1] = roots[k * (N / (DONE * RADIX))];
#pragma unroll
        for (int j = 1; j < RADIX; ++j) {
            if (j > 1) powers[j] = times(powers[j / 2], powers[j - j / 2]);
            values[j] = times(values[j], powers[j]);
        }
    }
}

// A line's DFT, by `thread` of its THREADS: load(i) gives value i, store(i, value) takes result i; DONE values are
// already joined. `cells` is the line's shared memory, of which every STEP-th value is its own. All threads of the
// block come here together.
template <int N, int STEP, int DONE = 1, class Load, class Store>
__device__ inline void transform(float2* cells, const float2* __restrict__ roots, int thread, Load load, Store store) {
    constexpr int radix = radix_of(N / DONE);
    constexpr int count = N / radix;
    constexpr int rounds = (count + THREADS<N> - 1) / THREADS<N>;
    constexpr bool last = DONE * radix == N;
    float2 values[rounds][radix] = {};
#pragma unroll
    for (int round = 0; round < rounds; ++round) {
        const int butterfly = thread + round * THREADS<N>;
        if (butterfly >= count) continue;
#pragma unroll
        for (int j = 0; j < radix; ++j) values[round][j] = load(butterfly + j * count);
        turn<N, DONE>(values[round], roots, butterfly % DONE);
        dft(values[round]);
    }
    __syncthreads();  // all have read what is now overwritten
#pragma unroll
    for (int round = 0; round < rounds; ++round) {
        const int butterfly = thread + round * THREADS<N>;
        if (butterfly >= count) continue;
        const int first = (butterfly - butterfly % DONE) * radix + butterfly % DONE;
#pragma unroll
        for (int j = 0; j < radix; ++j) {
            if constexpr (last)
                store(first + j * DONE, values[round][j]);
            else
                cells[padded(first + j * DONE) * STEP] = values[round][j];
        }
    }
    if constexpr (!last) {
        __syncthreads();
        const auto exchanged = [cells](int i) { return cells[padded(i) * STEP]; };
        transform<N, STEP, DONE * radix>(cells, roots, thread, exchanged, store);
    }
}

// The line along x that a thread works on, of lines [z][y][coil], ROWS to a block.
template <int N>
struct Row {
    int lane;
    bool mine;  // whether there is such a line
    long long voxel, coil_voxel, cell;  // where it begins in one coil's image, in all coils' images and in the grid
    float scale;

    __device__ Row(const float* __restrict__ scale_z, const float* __restrict__ scale_y, int coils, int size_z,
                   int size_y, int size_x, int fine_z, int fine_y) {
        lane = threadIdx.x / THREADS<N>;
        int line = blockIdx.x * ROWS<N> + lane;
        mine = line < size_z * size_y * coils;
        if (!mine) line = 0;
        const int coil = line % coils, z = line / coils / size_y, y = line / coils % size_y;
        voxel = (static_cast<long long>(z) * size_y + y) * size_x;
        coil_voxel = static_cast<long long>(coil) * size_z * size_y * size_x + voxel;
        const long long plane =
            static_cast<long long>(cell_at(z, size_z, fine_z)) * fine_y + cell_at(y, size_y, fine_y);
        cell = (plane * coils + coil) * N;
        scale = scale_z[z] * scale_y[y];
    }
};

// image · maps · scale, padded and transformed along x → the rows of the grid that hold voxels.
// With `maps` [coil][z][y][x] the image has no coil axis. Grid ⌈z · y · coils / ROWS⌉, block ROWS · THREADS.
template <int N>
__global__ void __launch_bounds__((ROWS<N> * THREADS<N>), 2)
    rows_in(const float2* __restrict__ image, const float2* __restrict__ maps, float2* __restrict__ grid,
            const float* __restrict__ scale_z, const float* __restrict__ scale_y, const float* __restrict__ scale_x,
            const float2* __restrict__ roots, int coils, int size_z, int size_y, int size_x, int fine_z, int fine_y) {
    DYNAMIC_SHARED(float2, cells);
    const Row<N> row(scale_z, scale_y, coils, size_z, size_y, size_x, fine_z, fine_y);
    const auto load = [=](int cell) {
        const int x = voxel_at(cell, size_x, N);
        if (!row.mine || x < 0) return make_float2(0.f, 0.f);
        const float2 value = maps == nullptr ? image[row.coil_voxel + x]
                                             : times(maps[row.coil_voxel + x], image[row.voxel + x]);
        return scaled(value, row.scale * scale_x[x]);
    };
    const auto store = [=](int cell, float2 value) {
        if (row.mine) grid[row.cell + cell] = value;
    };
    transform<N, 1>(cells + row.lane * padded(N), roots, threadIdx.x % THREADS<N>, load, store);
}

// The grid's rows that hold voxels, transformed back along x, cropped, times scale → image [coil][z][y][x].
// Launched as `rows_in`.
template <int N>
__global__ void __launch_bounds__((ROWS<N> * THREADS<N>), 2)
    rows_out(const float2* __restrict__ grid, float2* __restrict__ image, const float* __restrict__ scale_z,
             const float* __restrict__ scale_y, const float* __restrict__ scale_x, const float2* __restrict__ roots,
             int coils, int size_z, int size_y, int size_x, int fine_z, int fine_y) {
    DYNAMIC_SHARED(float2, cells);
    const Row<N> row(scale_z, scale_y, coils, size_z, size_y, size_x, fine_z, fine_y);
    const auto load = [=](int cell) { return row.mine ? conjugate(grid[row.cell + cell]) : make_float2(0.f, 0.f); };
    const auto store = [=](int cell, float2 value) {
        const int x = voxel_at(cell, size_x, N);
        if (row.mine && x >= 0) image[row.coil_voxel + x] = scaled(conjugate(value), row.scale * scale_x[x]);
    };
    transform<N, 1>(cells + row.lane * padded(N), roots, threadIdx.x % THREADS<N>, load, store);
}

// The same with Σ conj(maps) over coils → image [z][y][x], added to what is there where `more` is not 0.
// Coils take turns, ROWS at once. Grid (z · y), block ROWS · THREADS.
template <int N>
__global__ void __launch_bounds__((ROWS<N> * THREADS<N>), 1)
    rows_sum(const float2* __restrict__ grid, const float2* __restrict__ maps, float2* __restrict__ image,
             const float* __restrict__ scale_z, const float* __restrict__ scale_y, const float* __restrict__ scale_x,
             const float2* __restrict__ roots, int coils, int size_z, int size_y, int size_x, int fine_z, int fine_y,
             int more) {
    DYNAMIC_SHARED(float2, cells);
    float2* const sums = cells + ROWS<N> * padded(N);  // [lane][cell]
    const int lane = threadIdx.x / THREADS<N>;
    const int z = blockIdx.x / size_y;
    const int y = blockIdx.x % size_y;
    const long long plane = static_cast<long long>(cell_at(z, size_z, fine_z)) * fine_y + cell_at(y, size_y, fine_y);
    const long long voxels = static_cast<long long>(size_z) * size_y * size_x;
    const long long row = static_cast<long long>(blockIdx.x) * size_x;
    for (int first = 0; first < coils; first += ROWS<N>) {
        const int coil = first + lane;
        const bool mine = coil < coils;
        const float2* const in = grid + (plane * coils + coil) * N;
        const float2* const map = maps + coil * voxels + row;
        const auto load = [=](int cell) { return mine ? conjugate(in[cell]) : make_float2(0.f, 0.f); };
        const auto store = [=](int cell, float2 value) {  // the same thread takes the same cells in every turn
            const int x = voxel_at(cell, size_x, N);
            if (x < 0) return;
            const float2 part = mine ? conj_times(map[x], conjugate(value)) : make_float2(0.f, 0.f);
            float2& sum = sums[lane * N + cell];
            sum = first == 0 ? part : plus(sum, part);
        };
        transform<N, 1>(cells + lane * padded(N), roots, threadIdx.x % THREADS<N>, load, store);
    }
    __syncthreads();
    const float scale = scale_z[z] * scale_y[y];
    const int lanes = coils < ROWS<N> ? coils : ROWS<N>;
    for (int x = threadIdx.x; x < size_x; x += ROWS<N> * THREADS<N>) {
        float2 total = make_float2(0.f, 0.f);
        for (int i = 0; i < lanes; ++i) total = plus(total, sums[i * N + cell_at(x, size_x, N)]);
        total = scaled(total, scale * scale_x[x]);
        image[row + x] = more != 0 ? plus(image[row + x], total) : total;
    }
}

constexpr int PAD = 0, CROP = 1, CONVOLVE = 2;

// Along the middle axis of the grid seen as [outer][N][inner], in place, where outer cells hold voxels: PAD transforms
// the `size` voxels of a column into N cells, CROP the cells back into voxels, CONVOLVE does both and multiplies in
// between by `spectrum`, which is like the grid without coils. Grid (⌈inner/COLUMNS⌉, outer voxels), block
// COLUMNS · THREADS.
template <int N, int WAY>
__global__ void __launch_bounds__((COLUMNS<N> * THREADS<N>), 1)
    columns(float2* __restrict__ grid, const float* __restrict__ spectrum, const float2* __restrict__ roots, int size,
            int outer_size, int outer_fine, int inner, int coils, int fine_x) {
    DYNAMIC_SHARED(float2, block_cells);
    constexpr int step = COLUMNS<N>;
    const int column = blockIdx.x * step + threadIdx.x % step;
    const int thread = threadIdx.x / step;
    const bool mine = column < inner;
    float2* const cells = block_cells + threadIdx.x % step;
    float2* const values =
        grid + static_cast<long long>(cell_at(blockIdx.y, outer_size, outer_fine)) * N * inner + column;
    const auto kept = [=](int cell) { return mine && voxel_at(cell, size, N) >= 0; };
    const auto at = [=](int cell) -> float2& { return values[static_cast<long long>(cell) * inner]; };
    const auto load_kept = [=](int cell) { return kept(cell) ? at(cell) : make_float2(0.f, 0.f); };
    const auto store_kept = [=](int cell, float2 value) {
        if (kept(cell)) at(cell) = conjugate(value);
    };
    if constexpr (WAY == PAD) {
        const auto store = [=](int cell, float2 value) {
            if (mine) at(cell) = value;
        };
        transform<N, step>(cells, roots, thread, load_kept, store);
    } else if constexpr (WAY == CROP) {
        const auto load = [=](int cell) { return mine ? conjugate(at(cell)) : make_float2(0.f, 0.f); };
        transform<N, step>(cells, roots, thread, load, store_kept);
    } else {
        const int plane = inner / coils;
        const float* const factor = spectrum + column / (coils * fine_x) * fine_x + column % fine_x;
        const auto store = [=](int cell, float2 value) {
            if (mine) cells[padded(cell) * step] = scaled(value, factor[static_cast<long long>(cell) * plane]);
        };
        const auto load = [=](int cell) {
            return mine ? conjugate(cells[padded(cell) * step]) : make_float2(0.f, 0.f);
        };
        transform<N, step>(cells, roots, thread, load_kept, store);
        __syncthreads();
        transform<N, step>(cells, roots, thread, load, store_kept);
    }
}
