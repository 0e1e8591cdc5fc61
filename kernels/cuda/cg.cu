// Conjugate gradients without the host: every scalar stays on the device, in double precision.
//
// A dot product is left as one partial sum per block; whoever needs it adds them up again, each block in the same
// order, so that there is no atomic, no extra launch, and the same bits every time.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

// The sum over the block, in every thread.
__device__ inline double block_sum(double value) {
    SHARED(double, sums, THREADS / WARP);
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    __syncthreads();  // an earlier sum has been read
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = value;
    __syncthreads();
    double total = 0.0;
    for (int i = 0; i < THREADS / WARP; ++i) total += sums[i];
    return total;
}

__device__ inline double add_partial(const double* __restrict__ partial, int count) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += partial[i];
    return block_sum(sum);
}

__device__ inline double inner(float2 a, float2 b) {
    return static_cast<double>(a.x) * b.x + static_cast<double>(a.y) * b.y;
}

// x = 0, residual = direction = rhs, power = partial sums of |rhs|², stopped[0] = 0.
// Grid: as many blocks as there are partial sums, here and below.
__global__ void __launch_bounds__(THREADS)
    begin(const float2* __restrict__ rhs, float2* __restrict__ x, float2* __restrict__ residual,
          float2* __restrict__ direction, double* __restrict__ power, int* __restrict__ stopped, int count) {
    double sum = 0.0;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS) {
        const float2 value = rhs[i];
        x[i] = make_float2(0.0f, 0.0f);
        residual[i] = value;
        direction[i] = value;
        sum += inner(value, value);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) power[blockIdx.x] = sum;
    if (blockIdx.x == 0 && threadIdx.x == 0) stopped[0] = 0;
}

// curvature = partial sums of Re⟨direction, image⟩.
__global__ void __launch_bounds__(THREADS) measure(const float2* __restrict__ direction,
                                                   const float2* __restrict__ image, double* __restrict__ curvature,
                                                   int count) {
    double sum = 0.0;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS)
        sum += inner(direction[i], image[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) curvature[blockIdx.x] = sum;
}

// One step along `direction`: x and residual move, next_power = partial sums of the new |residual|².
// powers[iteration] becomes |residual|² before the step. Once the residual is small enough, or the curvature shows
// that nothing is left to gain, stopped[iteration + 1] and all later ones are 1 and nothing moves any more.
__global__ void __launch_bounds__(THREADS)
    advance(float2* __restrict__ x, float2* __restrict__ residual, const float2* __restrict__ direction,
            const float2* __restrict__ image, const double* __restrict__ power, const double* __restrict__ curvature,
            double* __restrict__ next_power, double* __restrict__ powers, int* __restrict__ stopped, float tolerance,
            int iteration, int count) {
    const double now = add_partial(power, gridDim.x);
    const double along = add_partial(curvature, gridDim.x);
    const bool small = iteration > 0 && now <= static_cast<double>(tolerance) * tolerance * powers[0];
    const bool stop = stopped[iteration] || small || along <= 0.0;
    const float step = stop ? 0.0f : static_cast<float>(now / along);
    double sum = 0.0;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS) {
        float2 left = residual[i];
        if (!stop) {
            float2 place = x[i];
            add_scaled(place, direction[i], step);
            add_scaled(left, image[i], -step);
            x[i] = place;
            residual[i] = left;
        }
        sum += inner(left, left);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) next_power[blockIdx.x] = sum;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        powers[iteration] = now;
        stopped[iteration + 1] = stop;
    }
}

// direction = residual + (new power / old power) direction.
__global__ void __launch_bounds__(THREADS)
    turn(const float2* __restrict__ residual, float2* __restrict__ direction, const double* __restrict__ next_power,
         double* __restrict__ powers, const int* __restrict__ stopped, int iteration, int count) {
    const double now = add_partial(next_power, gridDim.x);
    if (blockIdx.x == 0 && threadIdx.x == 0) powers[iteration + 1] = now;
    if (stopped[iteration + 1]) return;
    const float ratio = static_cast<float>(now / powers[iteration]);
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS) {
        float2 value = residual[i];
        add_scaled(value, direction[i], ratio);
        direction[i] = value;
    }
}
