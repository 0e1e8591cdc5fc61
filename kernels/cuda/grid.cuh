// Where the voxels of an axis lie in a longer one in FFT order: voxel r, counted from the centre, at cell r mod n.
#pragma once

// The voxel 0 … size−1 that cell `cell` of a grid of `fine` cells holds, −1 for padding.
__device__ inline int voxel_at(int cell, int size, int fine) {
    if (cell < size - size / 2) return cell + size / 2;
    return cell >= fine - size / 2 ? cell - (fine - size / 2) : -1;
}

__device__ inline int cell_at(int voxel, int size, int fine) {
    return voxel >= size / 2 ? voxel - size / 2 : voxel - size / 2 + fine;
}
