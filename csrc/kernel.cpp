// Runs the blocks of a call on several threads, and lists what this instruction set offers. Compiled once for each.
#include <vector>

#include "attend.h"
#include "norm.h"

namespace halonet::HALONET_ISA {

namespace {

template <class T>
Count count_table(const Axis& axis, const Table& table) {
    return Count(chunks(table.width, chunk<T>)) * axis.table_length() * chunk<T>;
}

template <class T>
int64_t table_size(const Axis& axis, const Table& table) {
    return count_table<T>(axis, table).value();
}

// The gradients of the tables are summed from so many parts.
int64_t table_parts(const Call& call) { return call.batch * count_groups(call.rows) * call.heads; }

// Memory of one call: the tables, the parts of their gradients, then a workspace for each thread.
template <class T>
Count memory_size(const Call& call, bool backward) {
    const Count tables = count_table<T>(call.rows, call.row_table) + count_table<T>(call.columns, call.column_table);
    const Count parts = backward ? table_parts(call) : 0;
    return tables * (parts + 1) * sizeof(T) + Workspace<T>(call, backward, nullptr).size * call.threads;
}

// Sum the parts of a table's gradient in their order.
template <class T>
void sum_parts(const T* parts, int64_t count, const Axis& axis, const Table& table, void* result) {
    const int64_t size = table_size<T>(axis, table);
    std::vector<double> sums(size);
    for (int64_t part = 0; part < count; ++part)
        for (int64_t i = 0; i < size; ++i) sums[i] += parts[part * size + i];
    const std::vector<T> rounded(sums.begin(), sums.end());
    write_table(rounded.data(), axis.table_length(), table.width, static_cast<T*>(result));
}

template <class T>
Tables<T> read_tables(const Call& call, void* memory, char*& after) {
    T* rows = static_cast<T*>(memory);
    T* columns = rows + table_size<T>(call.rows, call.row_table);
    if (call.has_positions()) {
        read_table(call.row_table, call.rows.table_length(), rows);
        read_table(call.column_table, call.columns.table_length(), columns);
    }
    after = reinterpret_cast<char*>(columns + table_size<T>(call.columns, call.column_table));
    return {rows, columns};
}

// Let all threads take tasks 0 to count - 1 until none is left; each call of `task` gets its thread's workspace.
template <class T, class Task>
void share(const Call& call, bool backward, char* workspaces, const Threads& threads, int64_t count, int64_t at_once,
           const Task& task) {
    const int64_t size = Workspace<T>(call, backward, nullptr).size.value();
    threads.share(call.threads, count, at_once, [&](int thread) {
        return [&task, work = Workspace<T>(call, backward, workspaces + size * thread)](int64_t i) { task(i, work); };
    });
}

template <class T>
void forward(const Call& call, void* memory, const Threads& threads) {
    char* workspaces;
    const Tables<T> tables = read_tables<T>(call, memory, workspaces);
    const int64_t columns = count_groups(call.columns), rows = count_groups(call.rows);
    const int64_t count = call.batch * rows * columns * call.heads;
    const int64_t at_once = std::max<int64_t>(1, count / (call.threads * 16));
    share<T>(call, false, workspaces, threads, count, at_once, [&](int64_t task, const Workspace<T>& work) {
        const int64_t head = task % call.heads, block = task / call.heads;
        const int64_t column = block % columns, row = block / columns % rows, batch = block / columns / rows;
        const Place<T> at{batch, head, make_span(call.rows, call.zeros, call.centered, row),
                          make_span(call.columns, call.zeros, call.centered, column)};
        if (at.queries() > 0) attend_forward(call, tables, at, work);
    });
}

// The blocks of a row follow each other on one thread, and rows whose windows overlap belong to different phases: so
// every gradient is summed in an order that does not depend on the threads.
template <class T>
void backward(const Call& call, void* memory, const Threads& threads) {
    char* after;
    const Tables<T> tables = read_tables<T>(call, memory, after);
    T* row_parts = reinterpret_cast<T*>(after);
    T* column_parts = row_parts + table_parts(call) * table_size<T>(call.rows, call.row_table);
    char* workspaces = reinterpret_cast<char*>(column_parts) +
                       table_parts(call) * table_size<T>(call.columns, call.column_table) * int64_t(sizeof(T));
    const int64_t columns = count_groups(call.columns), rows = count_groups(call.rows);
    const int64_t phases = std::min<int64_t>(count_phases(call.rows), rows);
    const int64_t row_size = table_size<T>(call.rows, call.row_table);
    const int64_t column_size = table_size<T>(call.columns, call.column_table);
    for (int64_t phase = 0; phase < phases; ++phase) {
        const int64_t rows_of_phase = (rows - phase + phases - 1) / phases;
        const int64_t count = call.batch * rows_of_phase * call.heads;
        share<T>(call, true, workspaces, threads, count, 1, [&](int64_t task, const Workspace<T>& work) {
            const int64_t head = task % call.heads, row = task / call.heads % rows_of_phase * phases + phase;
            const int64_t batch = task / call.heads / rows_of_phase;
            const int64_t part = (batch * rows + row) * call.heads + head;
            T *grad_row_table = row_parts + part * row_size, *grad_column_table = column_parts + part * column_size;
            std::fill_n(grad_row_table, row_size, T(0));
            std::fill_n(grad_column_table, column_size, T(0));
            const Span row_span = make_span(call.rows, call.zeros, call.centered, row);
            for (int64_t column = 0; column < columns; ++column) {
                const Place<T> at{batch, head, row_span,
                                  make_span(call.columns, call.zeros, call.centered, column)};
                if (at.queries() > 0) attend_backward(call, tables, at, work, grad_row_table, grad_column_table);
            }
        });
    }
    if (!call.has_positions()) return;
    sum_parts(row_parts, table_parts(call), call.rows, call.row_table, call.grad_row_table);
    sum_parts(column_parts, table_parts(call), call.columns, call.column_table, call.grad_column_table);
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
