// What every instruction set's translation unit offers, and how it runs something on several threads.
#pragma once

#include <algorithm>
#include <atomic>

#include "call.h"
#include "check.h"

namespace halonet {

// Runs a task once on each of so many threads, the calling one among them.
class Threads {
  public:
    using Fork = void (*)(void (*)(void*), void*, unsigned, unsigned);

    explicit Threads(Fork fork) : fork_(fork) {}

    template <class Task>
    void run(int count, const Task& task) const {
        run(count, [](void* given) { (*static_cast<const Task*>(given))(); }, const_cast<Task*>(&task));
    }

    // Let so many threads, or fewer, take the tasks 0 to count - 1 in turn, some at once, until none is left. Each
    // thread calls what `make_worker` makes of its number.
    template <class MakeWorker>
    void share(int64_t most_threads, int64_t count, int64_t at_once, const MakeWorker& make_worker) const {
        std::atomic<int64_t> next_task{0};
        std::atomic<int> next_thread{0};
        run(int(std::min(most_threads, (count + at_once - 1) / at_once)), [&] {
            const auto work = make_worker(next_thread++);
            for (int64_t first; (first = next_task.fetch_add(at_once)) < count;)
                for (int64_t i = first; i < std::min(first + at_once, count); ++i) work(i);
        });
    }

    // The same one by one, for tasks that need nothing of their thread's own.
    template <class Task>
    void share(int64_t most_threads, int64_t count, const Task& task) const {
        share(most_threads, count, 1, [&](int) { return [&](int64_t i) { task(i); }; });
    }

  private:
    void run(int count, void (*task)(void*), void* given) const;

    Fork fork_;  // of the OpenMP runtime that PyTorch uses; may be null
};

// For float and for double. Of a call that `check` has passed.
struct Kernel {
    Count (*memory_size[2])(const Call&, bool backward);
    void (*forward[2])(const Call&, void* memory, const Threads&);
    void (*backward[2])(const Call&, void* memory, const Threads&);
    Count (*norm_memory_size[2])(const NormCall&);
    void (*norm_forward[2])(const NormCall&, void* memory, const Threads&);
    void (*norm_backward[2])(const NormCall&, void* memory, const Threads&);
};

}  // namespace halonet
