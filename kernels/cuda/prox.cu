// Proximal steps.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;
constexpr int SWEEPS = 12;                     // a handful suffices: Jacobi's method converges quadratically
constexpr float ORTHOGONAL = 4.76837158e-7f;  // 2⁻²¹: cosine of the angle that single precision cannot tell from 90°

// max(1 − threshold / size, 0); NaN stays NaN.
__device__ inline float kept(float size, float threshold) { return size <= threshold ? 0.0f : 1.0f - threshold / size; }

// out = x max(1 − threshold / |x|, 0). Grid ⌈count/256⌉.
__global__ void __launch_bounds__(THREADS)
    shrink(const float2* __restrict__ x, float2* __restrict__ out, float threshold, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < count) out[i] = scaled(x[i], kept(hypotf(x[i].x, x[i].y), threshold));
}

__device__ inline float warp_sum(float value) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

// Where the values of one block lie: value (i, j) of its vectors, which are frames or, where those are more, voxels.
struct Region {
    int frames, sizes[3], block[3];  // the grid and the block, z, y, x
    int origin[3], extent[3];        // of this block in the shifted grid

    __device__ int voxels() const { return extent[0] * extent[1] * extent[2]; }
    __device__ int vectors() const { return frames <= voxels() ? frames : voxels(); }
    __device__ int length() const { return frames <= voxels() ? voxels() : frames; }

    __device__ long long at(int vector, int i) const {
        const int frame = frames <= voxels() ? vector : i;
        const int voxel = frames <= voxels() ? i : vector;
        const int z = wrap(origin[0] + voxel / (extent[2] * extent[1]), 0);
        const int y = wrap(origin[1] + voxel / extent[2] % extent[1], 1);
        const int x = wrap(origin[2] + voxel % extent[2], 2);
        return ((static_cast<long long>(frame) * sizes[0] + z) * sizes[1] + y) * sizes[2] + x;
    }

    __device__ int wrap(int i, int axis) const { return i < sizes[axis] ? i : i - sizes[axis]; }

    __device__ void place(int axis, int index, int shift) {
        const int first = index * block[axis];
        const int left = sizes[axis] - first;
        origin[axis] = first + shift;
        extent[axis] = left < block[axis] ? left : block[axis];
    }
};

// One warp makes two vectors of `length` orthogonal by a plane rotation of all their `pitch` values; true if it had to.
__device__ inline bool orthogonalise(float2* a, float2* b, int length, int pitch, int lane) {
    float aa = 0.0f, bb = 0.0f;
    float2 ab = make_float2(0.0f, 0.0f);
    for (int i = lane; i < length; i += WARP) {
        const float2 product = conj_times(a[i], b[i]);
        aa += a[i].x * a[i].x + a[i].y * a[i].y;
        bb += b[i].x * b[i].x + b[i].y * b[i].y;
        ab.x += product.x;
        ab.y += product.y;
    }
    aa = warp_sum(aa), bb = warp_sum(bb);
    ab = make_float2(warp_sum(ab.x), warp_sum(ab.y));
    const float size = hypotf(ab.x, ab.y);
    if (size <= ORTHOGONAL * sqrtf(aa) * sqrtf(bb)) return false;
    const float zeta = (bb - aa) / (2.0f * size);
    const float tangent = copysignf(1.0f, zeta) / (fabsf(zeta) + sqrtf(1.0f + zeta * zeta));
    const float cosine = 1.0f / sqrtf(1.0f + tangent * tangent);
    const float2 sine = scaled(ab, cosine * tangent / size);
    for (int i = lane; i < pitch; i += WARP) {
        const float2 old_a = a[i];
        const float2 old_b = b[i];
        const float2 from_b = conj_times(sine, old_b);
        const float2 from_a = times(sine, old_a);
        a[i] = make_float2(cosine * old_a.x - from_b.x, cosine * old_a.y - from_b.y);
        b[i] = make_float2(cosine * old_b.x + from_a.x, cosine * old_b.y + from_a.y);
    }
    return true;
}

// Pair `index` of round `round` of a tournament in which each of `players` (even) meets every other once.
__device__ inline int2 pairing(int players, int round, int index) {
    const int ring = players - 1;
    if (index == 0) return make_int2(round, ring);
    return make_int2((round + index) % ring, (round - index + ring) % ring);
}

// Blocks of [frame][z][y][x] with their singular values less `threshold`: one-sided Jacobi rotations V make the
// block's vectors A orthogonal (A V = U Σ), V is carried along behind them, and U max(Σ − threshold, 0) Vᴴ is written.
// One-sided, because the squares in a Gram matrix would lose small singular values in single precision.
// Grid: the blocks (x, y, z); block: whole warps; shared memory: vectors · (length + vectors) values and a float each.
// Magnitudes from 1e-18 to 1e18, whose squares are in range.
__global__ void __launch_bounds__(THREADS)
    low_rank(const float2* __restrict__ x, float2* __restrict__ out, float threshold, int frames, int size_z,
             int size_y, int size_x, int block_z, int block_y, int block_x, int shift_z, int shift_y, int shift_x) {
    DYNAMIC_SHARED(float2, values);
    SHARED(int, moved, 1);
    Region region = {frames, {size_z, size_y, size_x}, {block_z, block_y, block_x}, {}, {}};
    region.place(0, blockIdx.z, shift_z);
    region.place(1, blockIdx.y, shift_y);
    region.place(2, blockIdx.x, shift_x);
    const int vectors = region.vectors();
    const int length = region.length();
    const int pitch = length + vectors;
    const int threads = blockDim.x;
    const int lane = threadIdx.x % WARP;
    const int warp = threadIdx.x / WARP;
    float* const factors = reinterpret_cast<float*>(values + vectors * pitch);

    for (int e = threadIdx.x; e < vectors * pitch; e += threads) {
        const int vector = e / pitch;
        const int i = e % pitch;
        values[e] = i < length ? x[region.at(vector, i)] : make_float2(i - length == vector ? 1.0f : 0.0f, 0.0f);
    }
    const int players = vectors + vectors % 2;
    for (int sweep = 0; sweep < SWEEPS; ++sweep) {
        if (threadIdx.x == 0) *moved = 0;
        __syncthreads();
        for (int round = 0; round < players - 1; ++round) {
            for (int index = warp; index < players / 2; index += threads / WARP) {
                const int2 pair = pairing(players, round, index);
                if (pair.x >= vectors || pair.y >= vectors) continue;  // this vector rests
                const bool turned =
                    orthogonalise(values + pair.x * pitch, values + pair.y * pitch, length, pitch, lane);
                if (turned && lane == 0) *moved = 1;
            }
            __syncthreads();
        }
        const bool converged = *moved == 0;
        __syncthreads();  // all have read it before it is cleared
        if (converged) break;
    }
    for (int vector = warp; vector < vectors; vector += threads / WARP) {
        float power = 0.0f;
        for (int i = lane; i < length; i += WARP) {
            const float2 value = values[vector * pitch + i];
            power += value.x * value.x + value.y * value.y;
        }
        power = warp_sum(power);
        if (lane == 0) factors[vector] = kept(sqrtf(power), threshold);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < vectors * length; e += threads) {
        const int vector = e / length;
        const int i = e % length;
        float2 sum = make_float2(0.0f, 0.0f);
        for (int k = 0; k < vectors; ++k)
            add_scaled(sum, conj_times(values[k * pitch + length + vector], values[k * pitch + i]), factors[k]);
        out[region.at(vector, i)] = sum;
    }
}
