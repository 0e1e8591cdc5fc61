// What every .cu file shares. No header of CUDA's is included: NVRTC on a bare machine may lack them.
#pragma once

#ifndef DYNAMIC_SHARED  // the host shim of the tests brings its own
#define SHARED(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)                                    \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(dynamic_shared)

// Half precision as its 16 bits.
__device__ inline float widen(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
#endif

__device__ inline float widen(float value) { return value; }

__device__ inline float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }

// conj(a) b
__device__ inline float2 conj_times(float2 a, float2 b) {
    return make_float2(a.x * b.x + a.y * b.y, a.x * b.y - a.y * b.x);
}

__device__ inline float2 scaled(float2 a, float factor) { return make_float2(a.x * factor, a.y * factor); }

__device__ inline void add_scaled(float2& sum, float2 a, float factor) {
    sum.x += a.x * factor;
    sum.y += a.y * factor;
}
