// Runs the blocks of a call on several threads, and lists what this instruction set offers. Compiled once for each.
#include <vector>

#include "attend.h"
#include "norm.h"

namespace halonet::HALONET_ISA {

namespace {

// The memory of one call: the tables, the parts of their gradients, and a workspace for each thread.
template <class T>
struct Memory {
    Count row_size, column_size;  // numbers in the tables
    Count parts;                  // the gradients of the tables are summed from so many parts
    Count workspace_size = 0;     // bytes
    T *row_table, *column_table, *row_parts, *column_parts;
    char* workspaces;
    Count size = 0;  // bytes in all

    Memory(const Call& call, bool backward, void* memory)
        : row_size(Count(chunks(call.row_table.width, chunk<T>)) * call.rows.table_length() * chunk<T>),
          column_size(Count(chunks(call.column_table.width, chunk<T>)) * call.columns.table_length() * chunk<T>),
          parts(backward ? call.batch * count_groups(call.rows) * call.heads : 0) {
        Arena workspace{nullptr}, arena{static_cast<char*>(memory)};
        Workspace<T>(call, backward, workspace);
        workspace_size = workspace.size;
        row_table = arena.take<T>(row_size);
        column_table = arena.take<T>(column_size);
        row_parts = arena.take<T>(parts * row_size);
        column_parts = arena.take<T>(parts * column_size);
        workspaces = arena.take<char>(workspace_size * call.threads);
        size = arena.size;
    }
};

template <class T>
Count memory_size(const Call& call, bool backward) {
    return Memory<T>(call, backward, nullptr).size;
}

// Sum the parts of a table's gradient in their order.
template <class T>
void sum_parts(const T* parts, int64_t count, int64_t size, const Axis& axis, const Table& table, void* result) {
    std::vector<double> sums(size);
    for (int64_t part = 0; part < count; ++part)
        for (int64_t i = 0; i < size; ++i) sums[i] += parts[part * size + i];
    const std::vector<T> rounded(sums.begin(), sums.end());
    write_table(rounded.data(), axis.table_length(), table.width, static_cast<T*>(result));
}

template <class T>
Tables<T> read_tables(const Call& call, const Memory<T>& memory) {
    if (call.has_positions()) {
        read_table(call.row_table, call.rows.table_length(), memory.row_table);
        read_table(call.column_table, call.columns.table_length(), memory.column_table);
    }
    return {memory.row_table, memory.column_table};
}

// Let all threads take tasks 0 to count - 1 until none is left; each call of `task` gets its thread's workspace.
template <class T, class Task>
void share(const Call& call, bool backward, const Memory<T>& memory, const Threads& threads, int64_t count,
           int64_t at_once, const Task& task) {
    threads.share(call.threads, count, at_once, [&](int thread) {
        Arena arena{memory.workspaces + memory.workspace_size.value() * thread};
        return [&task, work = Workspace<T>(call, backward, arena)](int64_t i) { task(i, work); };
    });
}

template <class T>
void forward(const Call& call, void* given, const Threads& threads) {
    const Memory<T> memory(call, false, given);
    const Tables<T> tables = read_tables(call, memory);
    const int64_t columns = count_groups(call.columns), rows = count_groups(call.rows);
    const int64_t count = call.batch * rows * columns * call.heads;
    const int64_t at_once = std::max<int64_t>(1, count / (call.threads * 16));
    share(call, false, memory, threads, count, at_once, [&](int64_t task, const Workspace<T>& work) {
        const int64_t head = task % call.heads, block = task / call.heads;
        const int64_t column = block % columns, row = block / columns % rows, batch = block / columns / rows;
        const Group group{batch, head, make_span(call.rows, call.zeros, call.centered, row),
                          make_span(call.columns, call.zeros, call.centered, column)};
        if (group.num_queries() > 0) attend_forward(call, tables, group, work);
    });
}

// One thread takes the blocks of a row in turn, and rows whose windows overlap belong to different phases, so that the
// order of every sum is independent of the threads.
template <class T>
void backward(const Call& call, void* given, const Threads& threads) {
    const Memory<T> memory(call, true, given);
    const Tables<T> tables = read_tables(call, memory);
    const int64_t row_size = memory.row_size.value(), column_size = memory.column_size.value();
    const int64_t columns = count_groups(call.columns), rows = count_groups(call.rows);
    const int64_t phases = std::min<int64_t>(count_phases(call.rows), rows);
    for (int64_t phase = 0; phase < phases; ++phase) {
        const int64_t rows_of_phase = (rows - phase + phases - 1) / phases;
        const int64_t count = call.batch * rows_of_phase * call.heads;
        share(call, true, memory, threads, count, 1, [&](int64_t task, const Workspace<T>& work) {
            const int64_t head = task % call.heads, row = task / call.heads % rows_of_phase * phases + phase;
            const int64_t batch = task / call.heads / rows_of_phase;
            const int64_t part = (batch * rows + row) * call.heads + head;
            T* grad_row_table = memory.row_parts + part * row_size;
            T* grad_column_table = memory.column_parts + part * column_size;
            std::fill_n(grad_row_table, row_size, T(0));
            std::fill_n(grad_column_table, column_size, T(0));
            const Span row_span = make_span(call.rows, call.zeros, call.centered, row);
            for (int64_t column = 0; column < columns; ++column) {
                const Group group{batch, head, row_span, make_span(call.columns, call.zeros, call.centered, column)};
                if (group.num_queries() > 0)
                    attend_backward(call, tables, group, work, grad_row_table, grad_column_table);
            }
        });
    }
    if (!call.has_positions()) return;
    const int64_t parts = memory.parts.value();
    sum_parts(memory.row_parts, parts, row_size, call.rows, call.row_table, call.grad_row_table);
    sum_parts(memory.column_parts, parts, column_size, call.columns, call.column_table, call.grad_column_table);
}

}  // namespace

extern const Kernel kernel;
const Kernel kernel = {
    {memory_size<float>, memory_size<double>},
    {forward<float>, forward<double>},
    {backward<float>, backward<double>},
    {norm_memory_size<float>, norm_memory_size<double>},
    {norm_forward<float>, norm_forward<double>},
    {norm_backward<float>, norm_backward<double>},
};

}  // namespace halonet::HALONET_ISA
