// Between the fine grid and the points, for AXES 2 or 3, a kernel of WIDTH cells and COILS coils at a time.
//
// The grid is [z][y][coil][x] (without z for 2 axes), k-space [point][coil] in plan order where `order` is null, else
// [coil][sample] with sample order[point]. A weight of a cell is the product of WIDTH weights per axis,
// [point][axis][WIDTH]; lanes are coils, so that the weights of a point are fetched once for all of them.
// See kernels/plan.py for tiles, blocks and parts.
#include "common.cuh"

template <int AXES>
constexpr int EDGE = AXES == 2 ? 16 : 8;  // of a tile, in cells

template <int AXES>
constexpr int ROWS = AXES == 2 ? 16 : 64;  // of a tile, all lines along x

template <int AXES>
constexpr int INTERPOLATE_THREADS = AXES == 2 ? 256 : 512;

// A row of the tile is shared by SPLIT threads of a coil: a point mostly misses one of them, and blocks of few coils
// still fill warps.
template <int AXES, int COILS>
constexpr int SPLIT = AXES == 2 ? (COILS == 1 ? 4 : 2) : (COILS == 1 ? 2 : 1);

template <int AXES, int COILS>
constexpr int SPREAD_THREADS = COILS* ROWS<AXES>* SPLIT<AXES, COILS>;

constexpr int WARP = 32;
constexpr int STAGED = WARP;  // points whose weights and values are held in shared memory at once: a lane looks at each
constexpr unsigned ALL = 0xffffffffu;

// The 1 in the launch bounds lets the compiler take the registers it needs: left to itself it spills for sm_80.

struct Fine {
    int z, y, x;
};

struct Cell {
    int z, y, x;
};

template <int AXES>
__device__ inline Cell origin_of(const int* __restrict__ tile_origin, int tile) {
    const int* at = tile_origin + tile * AXES;
    return AXES == 2 ? Cell{0, at[0], at[1]} : Cell{at[0], at[1], at[AXES - 1]};
}

__device__ inline int wrapped(int cell, int size) {
    while (cell >= size) cell -= size;
    return cell;
}

// Where line (z, y) of a coil begins in the grid.
__device__ inline long long line(Fine fine, int coils, int z, int y, int coil) {
    return ((static_cast<long long>(z) * fine.y + y) * coils + coil) * fine.x;
}

// Where a value of k-space lies; see the head of this file.
__device__ inline long long place(const int* __restrict__ order, int point, int points, int coil, int coils) {
    if (order == nullptr) return static_cast<long long>(point) * coils + coil;
    return static_cast<long long>(coil) * points + order[point];
}

// Cells of a tile's footprint, in shared memory as [z][y][x][coil]. In 2-D one value of padding where there are several
// coils: lines are read along x, then taps along coils, and neither meets a bank twice. In 3-D the plan's order sees to
// the taps, and four cells of each coil are read at once: a sector of memory, and every bank once.
template <int AXES, int WIDTH, int COILS>
struct Footprint {
    static constexpr int span = EDGE<AXES> + WIDTH - 1;
    static constexpr int lines = AXES == 2 ? span : span * span;
    static constexpr int pitch = COILS + (AXES == 2 && COILS > 1);

    static __device__ void load(float2* cells, const float2* __restrict__ grid, Fine fine, Cell origin, int coil0,
                                int coils) {
        constexpr int run = AXES == 3 && COILS > 1 ? 4 : span;  // cells of a coil that neighbouring threads read
        constexpr int runs = (span + run - 1) / run;
        for (int i = threadIdx.x; i < lines * COILS * runs * run; i += INTERPOLATE_THREADS<AXES>) {
            const int x = i % run + i / run / COILS % runs * run;
            const int coil = i / run % COILS;
            const int row = i / run / COILS / runs;
            if (x >= span) continue;
            const int z = AXES == 2 ? 0 : wrapped(origin.z + row / span, fine.z);
            const int y = wrapped(origin.y + row % span, fine.y);
            float2 value = make_float2(0.f, 0.f);
            if (coil0 + coil < coils)
                value = grid[line(fine, coils, z, y, coil0 + coil) + wrapped(origin.x + x, fine.x)];
            cells[(row * span + x) * pitch + coil] = value;
        }
    }
};

// The cells that a point touches, of one coil. In 2-D they stay in registers: points come sorted by their first cell,
// and the next one mostly needs the same where there are more points than cells.
template <int AXES, int WIDTH, int COILS>
struct Taps {
    using Tile = Footprint<AXES, WIDTH, COILS>;
    static constexpr bool kept = AXES == 2;
    const float2* cells;
    int first = -1;
    float2 held[kept ? WIDTH : 1][kept ? WIDTH : 1];

    __device__ explicit Taps(const float2* of_coil) : cells(of_coil) {}

    __device__ void move(Cell at) {
        const int now = ((at.z * Tile::span + at.y) * Tile::span + at.x) * Tile::pitch;
        if (now == first) return;
        first = now;
        if constexpr (kept) {
#pragma unroll
            for (int i = 0; i < WIDTH; ++i)
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) held[i][j] = cells[first + (i * Tile::span + j) * Tile::pitch];
        }
    }

    __device__ float2 at(int z, int y, int x) const {
        if constexpr (kept) return held[y][x];
        return cells[first + ((z * Tile::span + y) * Tile::span + x) * Tile::pitch];
    }

    template <class Weight>
    __device__ float2 sum(const Weight* __restrict__ weights) const {
        float along_x[WIDTH];
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) along_x[j] = widen(weights[(AXES - 1) * WIDTH + j]);
        float2 total = make_float2(0.f, 0.f);
        for (int k = 0; k < (AXES == 2 ? 1 : WIDTH); ++k) {
            const float along_z = AXES == 2 ? 1.f : widen(weights[k]);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) {
                float2 row = make_float2(0.f, 0.f);
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) add_scaled(row, at(k, i, j), along_x[j]);
                add_scaled(total, row, along_z * widen(weights[(AXES - 2) * WIDTH + i]));
            }
        }
        return total;
    }
};

// Grid → points; `factor` [point], where not null, scales the result.
// Grid (blocks, ⌈coils/COILS⌉), block INTERPOLATE_THREADS, dynamic shared memory for one footprint.
template <int AXES, int WIDTH, int COILS, class Weight>
__global__ void __launch_bounds__(INTERPOLATE_THREADS<AXES>, 1)
    interpolate(const float2* __restrict__ grid, float2* __restrict__ out, const int* __restrict__ start,
                const Weight* __restrict__ weights, const int* __restrict__ blocks,
                const int* __restrict__ tile_origin, const int* __restrict__ order, const float* __restrict__ factor,
                int points, int coils, int fine_z, int fine_y, int fine_x) {
    DYNAMIC_SHARED(float2, cells);
    const Fine fine{fine_z, fine_y, fine_x};
    const int* range = blocks + blockIdx.x * 3;
    const Cell origin = origin_of<AXES>(tile_origin, range[0]);
    const int coil0 = blockIdx.y * COILS;
    Footprint<AXES, WIDTH, COILS>::load(cells, grid, fine, origin, coil0, coils);
    __syncthreads();
    const int lane = threadIdx.x % COILS;
    const int coil = coil0 + lane;
    if (coil >= coils) return;
    // Where cells are kept a thread takes neighbours in the list, otherwise threads of a warp do.
    using Mine = Taps<AXES, WIDTH, COILS>;
    constexpr int threads = INTERPOLATE_THREADS<AXES> / COILS;
    const int each = Mine::kept ? (range[2] - range[1] + threads - 1) / threads : 1;
    const int step = Mine::kept ? 1 : threads;
    const int first = range[1] + threadIdx.x / COILS * each;
    const int end = Mine::kept ? min(first + each, range[2]) : range[2];
    Mine taps(cells + lane);
    for (int point = first; point < end; point += step) {
        const long long entry = static_cast<long long>(point) * AXES;
        const Cell at = origin_of<AXES>(start, point);
        taps.move({at.z - origin.z, at.y - origin.y, at.x - origin.x});
        const float2 sum = taps.sum(weights + entry * WIDTH);
        out[place(order, point, points, coil, coils)] = factor == nullptr ? sum : scaled(sum, factor[point]);
    }
}

// Which part of the output tile a thread of `spread` owns: `length` cells of one line of one coil. Lines of a warp are
// neighbours, in 3-D along y and z, so that a point touches few warps.
template <int AXES, int COILS>
struct Share {
    static constexpr int length = EDGE<AXES> / SPLIT<AXES, COILS>;
    int lane;
    Cell at;  // the first cell, in the tile

    __device__ Share() : lane(threadIdx.x % COILS), at(of_unit(threadIdx.x / COILS)) {}

    static __device__ Cell of_unit(int unit) {
        const int row = unit % ROWS<AXES>, x = unit / ROWS<AXES> * length;
        if (AXES == 2) return {0, row, x};
        return {row / 4 % 2 + row / 16 * 2, row % 4 + row / 8 % 2 * 4, x};
    }

    // Two cells at a time: grids are of even size, tiles begin at even cells.
    __device__ void store(float2* __restrict__ grid, const float2* sums, Fine fine, Cell origin, int coils) const {
        const int z = AXES == 2 ? 0 : origin.z + at.z;
        const int y = origin.y + at.y;
        const int coil = blockIdx.y * COILS + lane;
        if (coil >= coils || z >= fine.z || y >= fine.y) return;
        const long long begin = line(fine, coils, z, y, coil) + origin.x + at.x;
#pragma unroll
        for (int i = 0; i < length; i += 2)
            if (origin.x + at.x + i < fine.x)
                *reinterpret_cast<float4*>(grid + begin + i) =
                    make_float4(sums[i].x, sums[i].y, sums[i + 1].x, sums[i + 1].y);
    }

    // A block's sums on their own, as `add_parts` reads them.
    __device__ static long long scratch(int slot) {
        constexpr long long threads = SPREAD_THREADS<AXES, COILS>;
        return (static_cast<long long>(slot) * gridDim.y + blockIdx.y) * threads * length + threadIdx.x;
    }
};

// Weight of cell `cell` of a line of the tile, 0 where the point does not touch it.
template <int WIDTH, class Weight>
__device__ inline float weight_at(const Weight* __restrict__ weights, int cell, int start, int size) {
    const int tap = cell >= start ? cell - start : cell - start + size;
    return tap < WIDTH ? widen(weights[tap]) : 0.f;
}

// Whether WIDTH cells from `begin` on, modulo `size`, are among a tile's cells from low to high.
template <int WIDTH>
__device__ inline bool meets(int begin, int size, int low, int high) {
    return (begin <= high && begin + WIDTH > low) || begin + WIDTH - size > low;
}

// Points → grid: a block owns a tile of the grid, its threads own the tile's cells, and each adds up all the points in
// the list's order: no atomics, the same bits every time. `parts` [part][4] is (tile, first entry, end, slot): slot −1
// writes the grid, another is one of several parts of a tile, whose sums `add_parts` adds up.
// Grid (parts, ⌈coils/COILS⌉), block SPREAD_THREADS.
template <int AXES, int WIDTH, int COILS, class Weight>
__global__ void __launch_bounds__((SPREAD_THREADS<AXES, COILS>), 1)
    spread(const float2* __restrict__ in, float2* __restrict__ grid, float2* __restrict__ partial,
           const int* __restrict__ start, const Weight* __restrict__ weights, const int* __restrict__ parts,
           const int* __restrict__ csr_point, const int* __restrict__ tile_origin, const int* __restrict__ order,
           const float* __restrict__ factor, int points, int coils, int fine_z, int fine_y, int fine_x) {
    using Mine = Share<AXES, COILS>;
    constexpr int threads = SPREAD_THREADS<AXES, COILS>;
    constexpr int edge = EDGE<AXES>;
    constexpr int quads = edge / 4;
    SHARED(float2, values, STAGED * COILS);
    SHARED(float4, dense, STAGED * AXES * quads);  // [staged][axis][cell], four cells at a time
    SHARED(int, begins, STAGED * AXES);            // [staged][axis]: first cell touched, counted from the tile's
    const Fine fine{fine_z, fine_y, fine_x};
    const int* part = parts + blockIdx.x * 4;
    const Cell origin = origin_of<AXES>(tile_origin, part[0]);
    const Mine mine;
    const int unit = threadIdx.x / WARP * WARP / COILS;
    const Cell low = Mine::of_unit(unit), high = Mine::of_unit(unit + WARP / COILS - 1);
    float2 sums[Mine::length];
#pragma unroll
    for (int i = 0; i < Mine::length; ++i) sums[i] = make_float2(0.f, 0.f);

    for (int first = part[1]; first < part[2]; first += STAGED) {
        const int staged = part[2] - first < STAGED ? part[2] - first : STAGED;
        for (int i = threadIdx.x; i < staged * COILS; i += threads) {
            const int point = csr_point[first + i / COILS];
            const int coil = blockIdx.y * COILS + i % COILS;
            float2 value = make_float2(0.f, 0.f);
            if (coil < coils) value = in[place(order, point, points, coil, coils)];
            values[i] = factor == nullptr ? value : scaled(value, factor[point]);
        }
        for (int i = threadIdx.x; i < staged * AXES * quads; i += threads) {
            const int axis = i / quads % AXES;
            const int size = axis == AXES - 1 ? fine.x : axis == AXES - 2 ? fine.y : fine.z;
            const int corner = axis == AXES - 1 ? origin.x : axis == AXES - 2 ? origin.y : origin.z;
            const long long entry = static_cast<long long>(csr_point[first + i / quads / AXES]) * AXES + axis;
            const Weight* of_axis = weights + entry * WIDTH;
            const int from = start[entry], cell = corner + i % quads * 4;
            dense[i] = make_float4(weight_at<WIDTH>(of_axis, cell, from, size),
                                   weight_at<WIDTH>(of_axis, cell + 1, from, size),
                                   weight_at<WIDTH>(of_axis, cell + 2, from, size),
                                   weight_at<WIDTH>(of_axis, cell + 3, from, size));
            if (i % quads == 0) begins[i / quads] = from - corner;
        }
        __syncthreads();
        const int looked = threadIdx.x % WARP;
        bool touched = looked < staged;
        if (touched) {
            const int* begin = begins + looked * AXES;
            touched = meets<WIDTH>(begin[AXES - 1], fine.x, low.x, high.x + Mine::length - 1) &&
                      meets<WIDTH>(begin[AXES - 2], fine.y, low.y, high.y) &&
                      (AXES == 2 || meets<WIDTH>(begin[0], fine.z, low.z, high.z));
        }
        for (unsigned left = __ballot_sync(ALL, touched); left != 0; left &= left - 1) {
            const int i = __ffs(left) - 1;
            const float4* of_point = dense + i * AXES * quads;
            const float* along = reinterpret_cast<const float*>(of_point);
            float weight = along[(AXES - 2) * edge + mine.at.y];
            if (AXES == 3) weight *= along[mine.at.z];
            const float2 value = scaled(values[i * COILS + mine.lane], weight);
            const float4* along_x = of_point + (AXES - 1) * quads + mine.at.x / 4;
#pragma unroll
            for (int j = 0; j < Mine::length; j += 4) {
                const float4 four = along_x[j / 4];
                add_scaled(sums[j], value, four.x);
                add_scaled(sums[j + 1], value, four.y);
                add_scaled(sums[j + 2], value, four.z);
                add_scaled(sums[j + 3], value, four.w);
            }
        }
        __syncthreads();
    }
    if (part[3] < 0) {
        mine.store(grid, sums, fine, origin, coils);
    } else {
        float2* const out = partial + Mine::scratch(part[3]);
#pragma unroll
        for (int i = 0; i < Mine::length; ++i) out[i * threads] = sums[i];
    }
}

// The tiles whose points were spread in parts: their sums, in the order of the parts.
// `split` [tile of several parts][3] is (tile, first slot, end). Grid (split tiles, ⌈coils/COILS⌉), block SPREAD_THREADS.
template <int AXES, int COILS>
__global__ void __launch_bounds__((SPREAD_THREADS<AXES, COILS>), 1)
    add_parts(const float2* __restrict__ partial, float2* __restrict__ grid, const int* __restrict__ split,
              const int* __restrict__ tile_origin, int coils, int fine_z, int fine_y, int fine_x) {
    using Mine = Share<AXES, COILS>;
    constexpr int threads = SPREAD_THREADS<AXES, COILS>;
    const int* tile = split + blockIdx.x * 3;
    const Mine mine;
    float2 sums[Mine::length];
#pragma unroll
    for (int i = 0; i < Mine::length; ++i) sums[i] = make_float2(0.f, 0.f);
    for (int slot = tile[1]; slot < tile[2]; ++slot) {
        const float2* in = partial + Mine::scratch(slot);
#pragma unroll
        for (int i = 0; i < Mine::length; ++i) add_scaled(sums[i], in[i * threads], 1.f);
    }
    mine.store(grid, sums, Fine{fine_z, fine_y, fine_x}, origin_of<AXES>(tile_origin, tile[0]), coils);
}
