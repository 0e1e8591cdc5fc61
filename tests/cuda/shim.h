// Runs CUDA kernels on the host: blocks one after another, each thread of a block a fiber with its own stack.
//
// Barriers and shuffles hand over to the other threads; a thread that misses one is an error, not a hang. Shared memory
// is one heap allocation per array and block, filled with NaN, so that AddressSanitizer sees every step out of bounds
// and a read before a write spoils the result. Threads and blocks run in an order drawn from a seed: what depends on
// the order (a missing barrier, a race) gives other bits with another seed. There is no warp lock-step.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct int3 { int x, y, z; };
struct alignas(16) int4 { int x, y, z, w; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

namespace shim {

constexpr int WARP = 32;
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t STACK = 256 << 10;
#else
constexpr std::size_t STACK = 64 << 10;
#endif

enum class State { ready, at_block, at_warp, done };

struct Fiber {
    std::unique_ptr<char[]> stack{new char[STACK]};
#ifdef __x86_64__
    void* context = nullptr;
#else
    ucontext_t context;
#endif
    State state = State::done;
    dim3 thread;
    int lane = 0, warp = 0;
    std::uint64_t exchange = 0;  // what a shuffle offers to the other lanes
};

struct Block {
    std::vector<std::unique_ptr<Fiber>> fibers;
    int count = 0;
    Fiber* current = nullptr;
    dim3 block_index, block_size, grid_size;
    std::map<std::pair<int, std::size_t>, std::unique_ptr<char[]>> shared;  // (line, elements)
    std::size_t dynamic_bytes = 0;
    void (*entry)(void*) = nullptr;
    void* argument = nullptr;
#ifdef __x86_64__
    void* scheduler = nullptr;
#else
    ucontext_t scheduler;
#endif
};

inline Block block;  // launches do not overlap: the caller holds a lock

#ifdef __x86_64__
extern "C" void shim_switch(void** save, void* load);
asm(R"(
.text
.p2align 4
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
inline void leave() { shim_switch(&block.current->context, block.scheduler); }
inline void enter(Fiber& fiber) { shim_switch(&block.scheduler, fiber.context); }
#else
inline void leave() { swapcontext(&block.current->context, &block.scheduler); }
inline void enter(Fiber& fiber) { swapcontext(&block.scheduler, &fiber.context); }
#endif

inline void run_fiber() {
    block.entry(block.argument);
    block.current->state = State::done;
    leave();
    std::abort();
}

inline void prepare(Fiber& fiber) {
#ifdef __x86_64__
    auto top = reinterpret_cast<std::uintptr_t>(fiber.stack.get() + STACK) & ~std::uintptr_t{15};
    auto* slot = reinterpret_cast<void**>(top);
    *--slot = nullptr;  // keeps the stack aligned as after a call
    *--slot = reinterpret_cast<void*>(&run_fiber);
    for (int i = 0; i < 6; ++i) *--slot = nullptr;
    fiber.context = slot;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
#endif
    fiber.state = State::ready;
}

inline void wait(State state) {
    block.current->state = state;
    leave();
}

// Frees all threads of [first, last) that stand at `state`, if all of them stand there.
inline bool release(State state, int first, int last) {
    for (int i = first; i < last; ++i)
        if (block.fibers[i]->state != state) return false;
    for (int i = first; i < last; ++i) block.fibers[i]->state = State::ready;
    return true;
}

inline bool step(const std::vector<int>& order) {
    bool moved = false;
    for (int i : order) {
        Fiber& fiber = *block.fibers[i];
        if (fiber.state != State::ready) continue;
        block.current = &fiber;
        enter(fiber);
        moved = true;
    }
    for (int first = 0; first < block.count; first += WARP)
        moved |= release(State::at_warp, first, std::min(first + WARP, block.count));
    return release(State::at_block, 0, block.count) || moved;
}

inline void run_block(const std::vector<int>& order) {
    for (int i = 0; i < block.count; ++i) prepare(*block.fibers[i]);
    block.shared.clear();
    while (step(order)) {}
    for (int i = 0; i < block.count; ++i)
        if (block.fibers[i]->state != State::done)
            throw std::runtime_error("thread " + std::to_string(i) + " waits at a barrier that others never reach");
}

inline std::vector<int> shuffled(int count, std::uint64_t seed) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(seed);
    if (seed) std::shuffle(order.begin(), order.end(), random);  // seed 0: as they are numbered
    return order;
}

inline void set_threads(dim3 size) {
    block.block_size = size;
    block.count = static_cast<int>(size.x * size.y * size.z);
    while (static_cast<int>(block.fibers.size()) < block.count) block.fibers.push_back(std::make_unique<Fiber>());
    for (int i = 0; i < block.count; ++i) {
        const unsigned u = i;
        block.fibers[i]->thread = {u % size.x, u / size.x % size.y, u / size.x / size.y};
        block.fibers[i]->warp = i / WARP;
        block.fibers[i]->lane = i % WARP;
    }
}

inline void run_grid(const unsigned* sizes, std::uint64_t seed) {
    block.grid_size = {sizes[0], sizes[1], sizes[2]};
    set_threads({sizes[3], sizes[4], sizes[5]});
    block.dynamic_bytes = sizes[6];
    const auto threads = shuffled(block.count, seed);
    for (int i : shuffled(static_cast<int>(sizes[0] * sizes[1] * sizes[2]), seed)) {
        const unsigned u = i;
        block.block_index = {u % sizes[0], u / sizes[0] % sizes[1], u / sizes[0] / sizes[1]};
        run_block(threads);
    }
}

template <class T>
T* shared(int line, std::size_t count) {
    auto& memory = block.shared[{line, count}];
    if (!memory) {
        memory.reset(new char[count * sizeof(T)]);
        std::memset(memory.get(), 0xFF, count * sizeof(T));
    }
    return reinterpret_cast<T*>(memory.get());
}

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

template <class... A>
void call(void (*kernel)(A...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>{});
}

template <class... A>
constexpr int arity(void (*)(A...)) {
    return sizeof...(A);
}

struct Entry {
    void (*call)(void*);
    int arguments;
};

template <auto kernel>
constexpr Entry bind() {
    return {[](void* arguments) { call(kernel, static_cast<void**>(arguments)); }, arity(kernel)};
}

// Returns 0, or 1 with a message.
inline int launch(Entry entry, const unsigned* sizes, std::uint64_t seed, void** arguments, char* message) try {
    block.entry = entry.call;
    block.argument = arguments;
    run_grid(sizes, seed);
    return 0;
} catch (const std::exception& error) {
    std::snprintf(message, 256, "%s", error.what());
    return 1;
}

template <class T>
T exchange(T value, int source) {
    static_assert(sizeof(T) <= 8);
    Fiber& self = *block.current;
    std::memcpy(&self.exchange, &value, sizeof(T));
    wait(State::at_warp);
    const int last = std::min(WARP, block.count - self.warp * WARP);
    if (source >= 0 && source < last)
        std::memcpy(&value, &block.fibers[self.warp * WARP + source]->exchange, sizeof(T));
    wait(State::at_warp);
    return value;
}

inline int segment(int width) { return block.current->lane / width * width; }

}  // namespace shim

#define SHARED(type, name, count) type* const name = shim::shared<type>(__LINE__, count)
#define DYNAMIC_SHARED(type, name) type* const name = shim::shared<type>(0, shim::block.dynamic_bytes / sizeof(type))
#define threadIdx (shim::block.current->thread)
#define blockIdx (shim::block.block_index)
#define blockDim (shim::block.block_size)
#define gridDim (shim::block.grid_size)

inline void __syncthreads() { shim::wait(shim::State::at_block); }
inline void __syncwarp(unsigned = 0xffffffffu) { shim::wait(shim::State::at_warp); }

// Shuffles of whole warps only: every lane takes part.
template <class T>
T __shfl_sync(unsigned, T value, int source, int width = shim::WARP) {
    return shim::exchange(value, shim::segment(width) + source % width);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int width = shim::WARP) {
    const int lane = shim::block.current->lane, source = lane + static_cast<int>(delta);
    return shim::exchange(value, source < shim::segment(width) + width ? source : lane);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int = shim::WARP) {
    return shim::exchange(value, shim::block.current->lane ^ mask);
}

inline unsigned __ballot_sync(unsigned, bool predicate) {
    shim::Fiber& self = *shim::block.current;
    self.exchange = predicate;
    shim::wait(shim::State::at_warp);
    unsigned bits = 0;
    const int first = self.warp * shim::WARP, last = std::min(first + shim::WARP, shim::block.count);
    for (int i = first; i < last; ++i) bits |= static_cast<unsigned>(shim::block.fibers[i]->exchange) << (i - first);
    shim::wait(shim::State::at_warp);
    return bits;
}
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }

template <class T>
T atomicAdd(T* address, T value) {
    return std::atomic_ref<T>(*address).fetch_add(value);
}

template <class T>
T __ldg(const T* address) {
    return *address;
}
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
using std::fma;
using std::max;
using std::min;

inline float widen(unsigned short bits) {
    _Float16 value;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}
