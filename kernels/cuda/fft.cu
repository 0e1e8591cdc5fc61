// Between the passes of a centred FFT: transpose, so that the next axis lies contiguous, and crop, roll and scale.
#include "common.cuh"

constexpr int TURN_EDGE = 32;
constexpr int TURN_ROWS = 8;

// in [batch][row][size] in FFT order → out [batch][kept][row], kept values of the last axis in centred order.
// Output k is input (k + first) mod size times factor[k].
// Grid (batch, ⌈row/32⌉, ⌈kept/32⌉), block (32, 8).
__global__ void __launch_bounds__(TURN_EDGE* TURN_ROWS)
    turn(const float2* __restrict__ in, float2* __restrict__ out, const float2* __restrict__ factor, int rows, int size,
         int kept, int first) {
    SHARED(float2, tile, TURN_EDGE * (TURN_EDGE + 1));
    const int row0 = blockIdx.y * TURN_EDGE;
    const int k0 = blockIdx.z * TURN_EDGE;
    const long long batch = blockIdx.x;
    const int k = k0 + threadIdx.x;
    if (k < kept) {
        const int column = k + first < size ? k + first : k + first - size;
        const float2 scale = factor[k];
        for (int i = threadIdx.y; i < TURN_EDGE && row0 + i < rows; i += TURN_ROWS)
            tile[i * (TURN_EDGE + 1) + threadIdx.x] = times(in[(batch * rows + row0 + i) * size + column], scale);
    }
    __syncthreads();
    const int row = row0 + threadIdx.x;
    if (row < rows)
        for (int i = threadIdx.y; i < TURN_EDGE && k0 + i < kept; i += TURN_ROWS)
            out[(batch * kept + k0 + i) * rows + row] = tile[threadIdx.x * (TURN_EDGE + 1) + i];
}
