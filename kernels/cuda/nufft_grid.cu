// Between images [coil][z][y][x] and the padded grid [z][y][coil][x] in FFT order (voxel r at cell r mod n): pad or
// crop, scale by one factor per axis, and multiply by coil maps on the way. Two axes are three with z = 1.
#include "common.cuh"
#include "grid.cuh"

// image · maps · scale → grid, padding included. With `maps` [coil][z][y][x] the image has no coil axis.
// Grid (fine z · fine y · coils), any block.
__global__ void __launch_bounds__(128)
    pad(const float2* __restrict__ image, const float2* __restrict__ maps, float2* __restrict__ grid,
        const float* __restrict__ scale_z, const float* __restrict__ scale_y, const float* __restrict__ scale_x,
        int coils, int size_z, int size_y, int size_x, int fine_z, int fine_y, int fine_x) {
    const long long line = blockIdx.x;
    const int coil = static_cast<int>(line % coils);
    const int z = voxel_at(static_cast<int>(line / coils / fine_y), size_z, fine_z);
    const int y = voxel_at(static_cast<int>(line / coils % fine_y), size_y, fine_y);
    const bool empty = z < 0 || y < 0;
    const float scale = empty ? 0.f : scale_z[z] * scale_y[y];
    const long long row = (static_cast<long long>(z) * size_y + y) * size_x;
    const long long coil_row = static_cast<long long>(coil) * size_z * size_y * size_x + row;
    for (int cell = threadIdx.x; cell < fine_x; cell += blockDim.x) {
        const int x = voxel_at(cell, size_x, fine_x);
        float2 value = make_float2(0.f, 0.f);
        if (!empty && x >= 0) {
            value = maps == nullptr ? image[coil_row + x] : times(maps[coil_row + x], image[row + x]);
            value = scaled(value, scale * scale_x[x]);
        }
        grid[line * fine_x + cell] = value;
    }
}

// grid · scale → image [coil][z][y][x]; with `maps`, Σ conj(maps) · grid · scale → [z][y][x], added to what is there
// where `more` is not 0. Grid (z · y, coils or 1), any block.
__global__ void __launch_bounds__(128)
    crop(const float2* __restrict__ grid, const float2* __restrict__ maps, float2* __restrict__ image,
         const float* __restrict__ scale_z, const float* __restrict__ scale_y, const float* __restrict__ scale_x,
         int coils, int size_z, int size_y, int size_x, int fine_z, int fine_y, int fine_x, int more) {
    const int z = blockIdx.x / size_y;
    const int y = blockIdx.x % size_y;
    const long long plane = static_cast<long long>(cell_at(z, size_z, fine_z)) * fine_y + cell_at(y, size_y, fine_y);
    const long long voxels = static_cast<long long>(size_z) * size_y * size_x;
    const long long row = static_cast<long long>(blockIdx.x) * size_x;
    const float scale = scale_z[z] * scale_y[y];
    for (int x = threadIdx.x; x < size_x; x += blockDim.x) {
        const float2* values = grid + plane * coils * fine_x + cell_at(x, size_x, fine_x);
        const float factor = scale * scale_x[x];
        if (maps == nullptr) {
            const long long coil = blockIdx.y;
            image[coil * voxels + row + x] = scaled(values[coil * fine_x], factor);
            continue;
        }
        float2 sum = make_float2(0.f, 0.f);
        for (long long coil = 0; coil < coils; ++coil) {
            const float2 product = conj_times(maps[coil * voxels + row + x], values[coil * fine_x]);
            add_scaled(sum, product, factor);
        }
        if (more != 0) add_scaled(sum, image[row + x], 1.f);
        image[row + x] = sum;
    }
}

// grid *= spectrum: the Toeplitz normal operator between its transforms. Both [z][y][coil][x], `spectrum` without coil.
// Grid (fine z · fine y · coils), any block.
__global__ void __launch_bounds__(128)
    multiply(float2* __restrict__ grid, const float* __restrict__ spectrum, int coils, int fine_x) {
    const long long line = blockIdx.x;
    for (int cell = threadIdx.x; cell < fine_x; cell += blockDim.x)
        grid[line * fine_x + cell] = scaled(grid[line * fine_x + cell], spectrum[line / coils * fine_x + cell]);
}
