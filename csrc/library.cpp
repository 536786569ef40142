// The C interface that Python calls through ctypes: the choice of an instruction set, memory and threads.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernel.h"

namespace halonet {

#if defined(__x86_64__) && !defined(HALONET_BASELINE_ONLY)
#define HALONET_HAS_AVX 1
#endif
#define HALONET_DECLARE(isa) \
    namespace isa {          \
    extern const Kernel kernel; \
    }
HALONET_DECLARE(baseline)
#if HALONET_HAS_AVX
HALONET_DECLARE(avx2)
HALONET_DECLARE(avx512)
#endif

namespace {

struct InstructionSet {
    const char* name;
    const Kernel* kernel;
    bool works_here;
};

#if HALONET_HAS_AVX
// Asks the processor itself: in Zig's runtime __builtin_cpu_supports says no to everything, and clang-cl links none.
bool processor_has(bool avx512) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE) || !(ecx & bit_FMA)) return false;
    unsigned saved, high;  // the registers that the operating system saves: bits 1 and 2 for AVX, 5 to 7 for AVX-512
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    const unsigned needed_saved = avx512 ? 0xe6 : 0x6;
    const unsigned needed = avx512 ? bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL : bit_AVX2;
    return (saved & needed_saved) == needed_saved && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
           (ebx & needed) == needed;
}
#endif

// The best first.
const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> sets = {
#if HALONET_HAS_AVX
        {"avx512", &avx512::kernel, processor_has(true)},
        {"avx2", &avx2::kernel, processor_has(false)},
#endif
        {"baseline", &baseline::kernel, true},
    };
    return sets;
}

const InstructionSet* chosen = nullptr;  // the best, until another is chosen
Threads::Fork openmp_fork = nullptr;

int process() {
#if defined(_WIN32)
    return 0;
#else
    return int(getpid());
#endif
}

int openmp_process = 0;

// Kept from call to call: fresh memory costs a page fault for every 4 KiB. Threads of Python have one each. Null where
// there is not enough.
void* scratch(int64_t size) {
    struct Free {
        void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
    };
    thread_local std::unique_ptr<void, Free> memory;
    thread_local int64_t capacity = 0;
    if (size > capacity) {
        memory.reset();
        capacity = 0;
        memory.reset(::operator new(size, std::align_val_t(64), std::nothrow));
        if (memory) capacity = size;
    }
    return memory.get();
}

const InstructionSet& choice() {
    for (const InstructionSet& each : instruction_sets())
        if (!chosen && each.works_here) chosen = &each;
    return *chosen;
}

template <class Work>
Status run(Count memory_size, const Work& work) {
    if (!memory_size.fits()) return Status::too_large;
    // An OpenMP runtime does not survive a fork.
    const Threads threads(openmp_process == process() ? openmp_fork : nullptr);
    void* memory = scratch(memory_size.value());
    if (!memory) return Status::no_memory;
    try {
        work(memory, threads);
    } catch (const std::bad_alloc&) {
        return Status::no_memory;
    }
    return Status::done;
}

}  // namespace

void Threads::run(int count, void (*task)(void*), void* given) const {
    if (count <= 1) return task(given);
    if (fork_) return fork_(task, given, unsigned(count), 0);
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < count; ++i) others.emplace_back(task, given);
    } catch (const std::exception&) {  // the machine gives no more threads, or memory: those there are do the work
    }
    task(given);
    for (std::thread& each : others) each.join();
}

}  // namespace halonet

using namespace halonet;

#pragma GCC visibility push(default)
extern "C" {

// Bytes of a Call and of a NormCall, to be compared with Python's idea of them.
int64_t halonet_call_size() { return sizeof(Call); }
int64_t halonet_norm_call_size() { return sizeof(NormCall); }

// Use PyTorch's own team of threads: `fork` is GOMP_parallel of its OpenMP runtime. Another team would fight with it
// for the cores, for its threads go on spinning for a while after their work.
void halonet_use_openmp(Threads::Fork fork) {
    openmp_fork = fork;
    openmp_process = process();
}

// Choose an instruction set by name, or the best with a null; false if this machine has no such set.
int halonet_choose(const char* name) {
    for (const InstructionSet& each : instruction_sets())
        if (each.works_here && (!name || !std::strcmp(name, each.name))) {
            chosen = &each;
            return 1;
        }
    return 0;
}

const char* halonet_chosen() { return choice().name; }

// Whether it was done, or why nothing was. `is_double` tells float from double.
Status halonet_run(const Call* call, int is_double, int backward) {
    const Status status = check(*call, backward);
    if (status != Status::done) return status;
    const Kernel& kernel = *choice().kernel;
    return run(kernel.memory_size[!!is_double](*call, backward), [&](void* memory, const Threads& threads) {
        (backward ? kernel.backward : kernel.forward)[!!is_double](*call, memory, threads);
    });
}

// Likewise.
Status halonet_norm(const NormCall* call, int is_double, int backward) {
    const Status status = check(*call, backward);
    if (status != Status::done) return status;
    const Kernel& kernel = *choice().kernel;
    return run(kernel.norm_memory_size[!!is_double](*call), [&](void* memory, const Threads& threads) {
        (backward ? kernel.norm_backward : kernel.norm_forward)[!!is_double](*call, memory, threads);
    });
}

}  // extern "C"
#pragma GCC visibility pop
