// Operations over coils and phases. Values of one coil lie together: [coil][voxel]; a thread owns a voxel.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int MIXED = 8;       // mixed coils that a thread of `mix` sums at once
constexpr int MIX_THREADS = 128;
constexpr int MIX_SAMPLES = 2;  // a thread's own, MIX_THREADS apart
constexpr int MIX_CHUNK = 64;   // coils whose weights are in shared memory at once
constexpr int MIX_BLOCKS = 6;    // per multiprocessor: leaves a thread the registers that its sums need

// out[voxel] = Σ_c conj(maps_c) images_c. Grid ⌈voxels/256⌉.
__global__ void __launch_bounds__(THREADS) combine(const float2* __restrict__ images, const float2* __restrict__ maps,
                                                   float2* __restrict__ out, int coils, int voxels) {
    const int voxel = blockIdx.x * THREADS + threadIdx.x;
    if (voxel >= voxels) return;
    float2 sum = make_float2(0.0f, 0.0f);
    for (int coil = 0; coil < coils; ++coil) {
        const long long at = static_cast<long long>(coil) * voxels + voxel;
        const float2 product = conj_times(maps[at], images[at]);
        sum.x += product.x;
        sum.y += product.y;
    }
    out[voxel] = sum;
}

// out_c = maps_c image. Grid ⌈voxels/256⌉.
__global__ void __launch_bounds__(THREADS) expand(const float2* __restrict__ image, const float2* __restrict__ maps,
                                                  float2* __restrict__ out, int coils, int voxels) {
    const int voxel = blockIdx.x * THREADS + threadIdx.x;
    if (voxel >= voxels) return;
    const float2 value = image[voxel];
    for (int coil = 0; coil < coils; ++coil) {
        const long long at = static_cast<long long>(coil) * voxels + voxel;
        out[at] = times(maps[at], value);
    }
}

// total[voxel] = Σ_c |images_c|², added to what is there unless `first`; its root if `last`. Grid ⌈voxels/256⌉.
__global__ void __launch_bounds__(THREADS)
    add_squares(const float2* __restrict__ images, float* __restrict__ total, int coils, int voxels, int first,
                int last) {
    const int voxel = blockIdx.x * THREADS + threadIdx.x;
    if (voxel >= voxels) return;
    float sum = first ? 0.0f : total[voxel];
    for (int coil = 0; coil < coils; ++coil) {
        const float2 value = images[static_cast<long long>(coil) * voxels + voxel];
        sum += value.x * value.x + value.y * value.y;
    }
    total[voxel] = last ? sqrtf(sum) : sum;
}

// Weights [mixed][coil] of the rows from `row0` and coils from `coil0` into shared [coil][MIXED]; zeros beyond the ends.
__device__ inline void load_weights(const float2* __restrict__ weights, float2* shared, int row0, int rows, int coil0,
                                    int coils) {
    for (int i = threadIdx.x; i < MIX_CHUNK * MIXED; i += MIX_THREADS) {
        const int row = row0 + i % MIXED;
        const int coil = coil0 + i / MIXED;
        const bool inside = row < rows && coil < coils;
        shared[i] = inside ? weights[row * coils + coil] : make_float2(0.0f, 0.0f);
    }
}

// sums[i][k] = Σ_c weights[row0 + k][c] in[c][sample i], for the thread's samples; the whole block calls it.
__device__ inline void mix_rows(const float2* __restrict__ weights, const float2* __restrict__ in, float2* shared,
                                float2 (&sums)[MIX_SAMPLES][MIXED], int row0, int rows, int coils, int samples) {
    const int sample0 = blockIdx.x * (MIX_THREADS * MIX_SAMPLES) + threadIdx.x;
#pragma unroll
    for (int i = 0; i < MIX_SAMPLES; ++i)
#pragma unroll
        for (int k = 0; k < MIXED; ++k) sums[i][k] = make_float2(0.0f, 0.0f);
    for (int coil0 = 0; coil0 < coils; coil0 += MIX_CHUNK) {
        __syncthreads();  // the last chunk has been used
        load_weights(weights, shared, row0, rows, coil0, coils);
        __syncthreads();
        const int count = coils - coil0 < MIX_CHUNK ? coils - coil0 : MIX_CHUNK;
        for (int c = 0; c < count; ++c) {
#pragma unroll
            for (int i = 0; i < MIX_SAMPLES; ++i) {
                const int sample = sample0 + i * MIX_THREADS;
                const float2 value = sample < samples ? in[static_cast<long long>(coil0 + c) * samples + sample]
                                                      : make_float2(0.0f, 0.0f);
#pragma unroll
                for (int k = 0; k < MIXED; ++k) {
                    const float2 product = times(shared[c * MIXED + k], value);
                    sums[i][k].x += product.x;
                    sums[i][k].y += product.y;
                }
            }
        }
    }
}

// out[batch][mixed][sample] = Σ_c weights[mixed][c] in[batch][c][sample].
// Grid (⌈samples/256⌉, ⌈mixed/8⌉, parts of the batch), block 128.
__global__ void __launch_bounds__(MIX_THREADS, MIX_BLOCKS)
    mix(const float2* __restrict__ weights, const float2* __restrict__ in, float2* __restrict__ out, int rows,
        int coils, int samples, int batch) {
    SHARED(float2, shared, MIX_CHUNK * MIXED);
    const int row0 = blockIdx.y * MIXED;
    float2 sums[MIX_SAMPLES][MIXED];
    for (long long b = blockIdx.z; b < batch; b += gridDim.z) {
        mix_rows(weights, in + b * coils * samples, shared, sums, row0, rows, coils, samples);
#pragma unroll
        for (int i = 0; i < MIX_SAMPLES; ++i) {
            const int sample = blockIdx.x * (MIX_THREADS * MIX_SAMPLES) + threadIdx.x + i * MIX_THREADS;
#pragma unroll
            for (int k = 0; k < MIXED; ++k)
                if (sample < samples && row0 + k < rows) out[(b * rows + row0 + k) * samples + sample] = sums[i][k];
        }
    }
}

// out[voxel] = √Σ_mixed |Σ_c weights[mixed][c] in[c][voxel]|²: the mixed coils are never stored.
// Grid ⌈voxels/256⌉, block 128.
__global__ void __launch_bounds__(MIX_THREADS, MIX_BLOCKS) mixed_rss(const float2* __restrict__ weights,
                                                         const float2* __restrict__ in, float* __restrict__ out,
                                                         int rows, int coils, int voxels) {
    SHARED(float2, shared, MIX_CHUNK * MIXED);
    float total[MIX_SAMPLES] = {};
    float2 sums[MIX_SAMPLES][MIXED];
    for (int row0 = 0; row0 < rows; row0 += MIXED) {
        mix_rows(weights, in, shared, sums, row0, rows, coils, voxels);
#pragma unroll
        for (int i = 0; i < MIX_SAMPLES; ++i)
#pragma unroll
            for (int k = 0; k < MIXED; ++k) total[i] += sums[i][k].x * sums[i][k].x + sums[i][k].y * sums[i][k].y;
    }
#pragma unroll
    for (int i = 0; i < MIX_SAMPLES; ++i) {
        const int voxel = blockIdx.x * (MIX_THREADS * MIX_SAMPLES) + threadIdx.x + i * MIX_THREADS;
        if (voxel < voxels) out[voxel] = sqrtf(total[i]);
    }
}

// exp(i phase). The phase less its quarter turns is exact by fused multiply-add for |phase| ≤ 1e4 (π/2 in two parts),
// and sincosf would keep a path for huge phases that needs local memory. Taylor series for |rest| ≤ π/4: the next
// terms are 2e-9 and 2e-10.
__device__ inline float2 unit(float phase) {
    const float quarters = rintf(phase * 0.636619772f);
    float rest = fmaf(-quarters, 1.57079637f, phase);
    rest = fmaf(quarters, 4.37113883e-8f, rest);
    const float square = rest * rest;
    float sine = fmaf(square, 2.75573192e-6f, -1.98412698e-4f);
    sine = fmaf(fmaf(sine, square, 8.33333333e-3f), square, -1.66666667e-1f);
    sine = fmaf(sine * square, rest, rest);
    float cosine = fmaf(square, -2.75573192e-7f, 2.48015873e-5f);
    cosine = fmaf(fmaf(cosine, square, -1.38888889e-3f), square, 4.16666667e-2f);
    cosine = fmaf(fmaf(cosine, square, -0.5f), square, 1.0f);
    const int quadrant = static_cast<int>(quarters) & 3;
    const float2 swapped = quadrant & 1 ? make_float2(-sine, cosine) : make_float2(cosine, sine);
    return quadrant & 2 ? make_float2(-swapped.x, -swapped.y) : swapped;
}

// out[batch][voxel] = x[batch][voxel] exp(i phase[voxel]). Grid (⌈voxels/256⌉, parts of the batch).
__global__ void __launch_bounds__(THREADS) rotate(const float2* __restrict__ x, const float* __restrict__ phase,
                                                  float2* __restrict__ out, int voxels, int batch) {
    const int voxel = blockIdx.x * THREADS + threadIdx.x;
    if (voxel >= voxels) return;
    const float2 turn = unit(phase[voxel]);
    for (long long b = blockIdx.y; b < batch; b += gridDim.y) out[b * voxels + voxel] = times(x[b * voxels + voxel], turn);
}
