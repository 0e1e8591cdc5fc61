// One level of the orthogonal wavelet transform (Daubechies, 4 taps, periodic) in one pass over the data: a thread
// reads 4 values along each axis that is split and writes 2, one into each band. Neighbours' reads overlap in L1.
#include "common.cuh"

constexpr int LANES = 32;
constexpr int ROWS = 8;

// Low-pass (band 0) and high-pass taps; with j a constant after unrolling they become immediates.
__device__ constexpr float tap(int band, int j) {
    return band == 0 ? (j == 0 ? 0.482962913f : j == 1 ? 0.836516304f : j == 2 ? 0.224143868f : -0.129409523f)
                     : (j == 0 ? -0.129409523f : j == 1 ? -0.224143868f : j == 2 ? 0.836516304f : -0.482962913f);
}

// i modulo size for −size ≤ i < 2 size.
__device__ inline int wrap(int i, int size) { return i < 0 ? i + size : i < size ? i : i - size; }

// Sizes of the array that is split or joined, z, y, x, and of the packed coefficients in whose low corner it belongs.
struct Sizes {
    int z, y, x, full_z, full_y, full_x;

    __device__ long long own(long long batch, int iz, int iy, int ix) const {
        return ((batch * z + iz) * y + iy) * x + ix;
    }
    __device__ long long packed(long long batch, int iz, int iy, int ix) const {
        return ((batch * full_z + iz) * full_y + iy) * full_x + ix;
    }
};

// Where band b of coefficient (cz, cy, cx) lies. The low band goes to an array of its own for the next level, or to
// its corner of the packed ones where `low` is null: at the last level.
template <bool Z, bool Y, bool X, class Value>
__device__ inline Value* coefficient(Value* low, Value* packed, const Sizes& sizes, long long batch, int bz, int by,
                                     int bx, int cz, int cy, int cx) {
    const int z = Z ? sizes.z / 2 : sizes.z;
    const int y = Y ? sizes.y / 2 : sizes.y;
    const int x = X ? sizes.x / 2 : sizes.x;
    if (low != nullptr && bz + by + bx == 0) return low + ((batch * z + cz) * y + cy) * x + cx;
    return packed + sizes.packed(batch, cz + bz * z, cy + by * y, cx + bx * x);
}

// in [batch][z][y][x], its origin moved by (shift_z, shift_y, shift_x) → its bands.
// Grid (⌈x/32⌉, ⌈y/8⌉, parts of batch · z) of the bands' sizes, block (32, 8).
template <bool Z, bool Y, bool X>
__global__ void __launch_bounds__(LANES* ROWS)
    split(const float2* __restrict__ in, float2* __restrict__ low, float2* __restrict__ packed, int batch, int size_z,
          int size_y, int size_x, int full_z, int full_y, int full_x, int shift_z, int shift_y, int shift_x) {
    const Sizes sizes = {size_z, size_y, size_x, full_z, full_y, full_x};
    const int depth = Z ? size_z / 2 : size_z;
    const int cx = blockIdx.x * LANES + threadIdx.x;
    const int cy = blockIdx.y * ROWS + threadIdx.y;
    if (cx >= (X ? size_x / 2 : size_x) || cy >= (Y ? size_y / 2 : size_y)) return;
    for (int plane = blockIdx.z; plane < batch * depth; plane += gridDim.z) {
        const long long b = plane / depth;
        const int cz = plane % depth;
        float2 sums[2][2][2] = {};  // [band z][band y][band x]
#pragma unroll
        for (int jz = 0; jz < (Z ? 4 : 1); ++jz) {
            const int z = wrap((Z ? 2 * cz - 1 + jz : cz) + shift_z, size_z);
            float2 rows[2][2] = {};
#pragma unroll
            for (int jy = 0; jy < (Y ? 4 : 1); ++jy) {
                const int y = wrap((Y ? 2 * cy - 1 + jy : cy) + shift_y, size_y);
                float2 row[2] = {};
#pragma unroll
                for (int jx = 0; jx < (X ? 4 : 1); ++jx) {
                    const int x = wrap((X ? 2 * cx - 1 + jx : cx) + shift_x, size_x);
                    const float2 value = in[sizes.own(b, z, y, x)];
#pragma unroll
                    for (int bx = 0; bx < (X ? 2 : 1); ++bx) add_scaled(row[bx], value, X ? tap(bx, jx) : 1.0f);
                }
#pragma unroll
                for (int by = 0; by < (Y ? 2 : 1); ++by)
#pragma unroll
                    for (int bx = 0; bx < (X ? 2 : 1); ++bx) add_scaled(rows[by][bx], row[bx], Y ? tap(by, jy) : 1.0f);
            }
#pragma unroll
            for (int bz = 0; bz < (Z ? 2 : 1); ++bz)
#pragma unroll
                for (int by = 0; by < (Y ? 2 : 1); ++by)
#pragma unroll
                    for (int bx = 0; bx < (X ? 2 : 1); ++bx)
                        add_scaled(sums[bz][by][bx], rows[by][bx], Z ? tap(bz, jz) : 1.0f);
        }
#pragma unroll
        for (int bz = 0; bz < (Z ? 2 : 1); ++bz)
#pragma unroll
            for (int by = 0; by < (Y ? 2 : 1); ++by)
#pragma unroll
                for (int bx = 0; bx < (X ? 2 : 1); ++bx)
                    *coefficient<Z, Y, X>(low, packed, sizes, b, bz, by, bx, cz, cy, cx) = sums[bz][by][bx];
    }
}

// The transpose of `split`. A thread makes values 2c − 1 and 2c along each joined axis, from the two bands at c − 1
// and c: source j of an axis is band j / 2 at c − 1 + j % 2, and value p takes it times tap 2 − 2 (j % 2) + p.
// Grid and block as for `split`.
template <bool Z, bool Y, bool X>
__global__ void __launch_bounds__(LANES* ROWS)
    join(const float2* __restrict__ low, const float2* __restrict__ packed, float2* __restrict__ out, int batch,
         int size_z, int size_y, int size_x, int full_z, int full_y, int full_x, int shift_z, int shift_y,
         int shift_x) {
    const Sizes sizes = {size_z, size_y, size_x, full_z, full_y, full_x};
    const int depth = Z ? size_z / 2 : size_z;
    const int height = Y ? size_y / 2 : size_y;
    const int width = X ? size_x / 2 : size_x;
    const int cx = blockIdx.x * LANES + threadIdx.x;
    const int cy = blockIdx.y * ROWS + threadIdx.y;
    if (cx >= width || cy >= height) return;
    for (int plane = blockIdx.z; plane < batch * depth; plane += gridDim.z) {
        const long long b = plane / depth;
        const int cz = plane % depth;
        float2 sums[2][2][2] = {};  // [value z][value y][value x]
#pragma unroll
        for (int jz = 0; jz < (Z ? 4 : 1); ++jz) {
            const int z = Z ? wrap(cz - 1 + jz % 2, depth) : cz;
            float2 rows[2][2] = {};
#pragma unroll
            for (int jy = 0; jy < (Y ? 4 : 1); ++jy) {
                const int y = Y ? wrap(cy - 1 + jy % 2, height) : cy;
                float2 row[2] = {};
#pragma unroll
                for (int jx = 0; jx < (X ? 4 : 1); ++jx) {
                    const int x = X ? wrap(cx - 1 + jx % 2, width) : cx;
                    const float2 value = *coefficient<Z, Y, X>(low, packed, sizes, b, jz / 2, jy / 2, jx / 2, z, y, x);
#pragma unroll
                    for (int p = 0; p < (X ? 2 : 1); ++p)
                        add_scaled(row[p], value, X ? tap(jx / 2, 2 - 2 * (jx % 2) + p) : 1.0f);
                }
#pragma unroll
                for (int q = 0; q < (Y ? 2 : 1); ++q)
#pragma unroll
                    for (int p = 0; p < (X ? 2 : 1); ++p)
                        add_scaled(rows[q][p], row[p], Y ? tap(jy / 2, 2 - 2 * (jy % 2) + q) : 1.0f);
            }
#pragma unroll
            for (int o = 0; o < (Z ? 2 : 1); ++o)
#pragma unroll
                for (int q = 0; q < (Y ? 2 : 1); ++q)
#pragma unroll
                    for (int p = 0; p < (X ? 2 : 1); ++p)
                        add_scaled(sums[o][q][p], rows[q][p], Z ? tap(jz / 2, 2 - 2 * (jz % 2) + o) : 1.0f);
        }
#pragma unroll
        for (int o = 0; o < (Z ? 2 : 1); ++o)
#pragma unroll
            for (int q = 0; q < (Y ? 2 : 1); ++q)
#pragma unroll
                for (int p = 0; p < (X ? 2 : 1); ++p) {
                    const int z = wrap((Z ? 2 * cz - 1 + o : cz) + shift_z, size_z);
                    const int y = wrap((Y ? 2 * cy - 1 + q : cy) + shift_y, size_y);
                    const int x = wrap((X ? 2 * cx - 1 + p : cx) + shift_x, size_x);
                    out[sizes.own(b, z, y, x)] = sums[o][q][p];
                }
    }
}
