// Halo attention of one head in one block, forward and backward. Scores are kept as [keys, queries]: the queries of a
// tile lie along the lanes, so that masks, softmax and relative positions need no operation across lanes.
#pragma once

#include <limits>

#include "check.h"
#include "group.h"

namespace halonet::HALONET_ISA {

// All the memory that one thread works in, carved from one piece.
template <class T>
struct Workspace {
    T *key, *value, *grad_key, *grad_value;                     // windows
    T *query, *output, *grad_output, *grad_query;               // tiles as [channels, lanes]
    T *query_rows, *query_columns, *grad_output_rows;           // tiles as [chunks, lanes, channels of a chunk]
    T *table_logits, *row_logits, *column_logits;               // [entries or keys, lanes]
    T *row_sums, *column_sums;                                  // the same, of the gradients
    T *row_visible, *column_visible;                            // [keys, lanes]: -1 where a query may see it, else 0
    T *scores, *grad_scores;                                    // [keys, lanes]
    T *lane[4];                                                 // one number for each lane
    Count size = 0;                                             // bytes in all

    // Without memory it only counts.
    Workspace(const Call& call, bool backward, void* memory) {
        const Count rows = most_keys(call.rows, call.zeros), columns = most_keys(call.columns, call.zeros);
        const Count keys = rows * columns;
        const Count query_chunks = chunks(call.query_channels, chunk<T>);
        const Count value_chunks = chunks(call.value_channels, chunk<T>);
        const auto take = [&](T*& pointer, Count count) {
            pointer = memory ? reinterpret_cast<T*>(static_cast<char*>(memory) + size.value()) : nullptr;
            size = size + (count * sizeof(T)).rounded_up_to(64);
        };
        take(key, query_chunks * keys * chunk<T>);
        take(value, value_chunks * keys * chunk<T>);
        take(query, query_chunks * chunk<T> * tile<T>);
        take(output, value_chunks * chunk<T> * tile<T>);
        take(table_logits, Count(std::max(call.rows.table_length(), call.columns.table_length())) * tile<T>);
        take(row_logits, rows * tile<T>);
        take(column_logits, columns * tile<T>);
        take(row_visible, rows * tile<T>);
        take(column_visible, columns * tile<T>);
        for (T*& each : lane) take(each, tile<T>);
        take(scores, (backward ? columns : keys) * tile<T>);
        if (!backward) return;
        take(grad_scores, columns * tile<T>);
        take(row_sums, rows * tile<T>);
        take(column_sums, columns * tile<T>);
        take(grad_key, query_chunks * keys * chunk<T>);
        take(grad_value, value_chunks * keys * chunk<T>);
        take(grad_output, value_chunks * chunk<T> * tile<T>);
        take(grad_query, query_chunks * chunk<T> * tile<T>);
        take(query_rows, query_chunks * chunk<T> * tile<T>);
        take(query_columns, query_chunks * chunk<T> * tile<T>);
        take(grad_output_rows, value_chunks * chunk<T> * tile<T>);
    }
};

// Both tables, laid out for the products; read by all threads.
template <class T>
struct Tables {
    const T *rows, *columns;
};

// One block and one head of one image.
template <class T>
struct Place {
    int64_t batch, head;
    Span rows, columns;

    int64_t keys() const { return rows.num_keys * columns.num_keys; }
    int64_t queries() const { return rows.num_queries * columns.num_queries; }
};

// Products of pixels, whose chunks of channels are `distance` elements apart, with a tile of as many channels.
template <class T>
void multiply(const Tile<T>& tile_, int64_t pixels, int64_t channels, const T* a, int64_t distance, const T* b,
              T* result) {
    for (int64_t done = 0; done < channels; done += chunk<T>, a += distance, b += chunk<T> * tile<T>) {
        const int64_t length = std::min<int64_t>(channels - done, chunk<T>);
        if (done == 0)
            product<ByChannel, Start::zero>(pixels, tile_.vectors, length, a, b, result);
        else
            product<ByChannel, Start::result>(pixels, tile_.vectors, length, a, b, result);
    }
}

// Logits that a query gives to the keys of a window along one axis: the products with the whole table, and of those
// the ones that belong to the query's own offsets.
template <class T>
void position_logits(const Tile<T>& tile_, const T* table, int64_t entries, int64_t width, const T* query,
                     const int64_t* entry, int64_t keys, T* all_entries, T* logits) {
    multiply(tile_, entries, width, table, entries * chunk<T>, query, all_entries);
    const int used = tile_.vectors * lanes<T>;
    if (width == 0) std::fill_n(all_entries, entries * tile<T>, T(0));
    for (int lane = 0; lane < used; ++lane) {
        const T* from = all_entries + entry[lane] * tile<T> + lane;
        for (int64_t key = 0; key < keys; ++key) logits[key * tile<T> + lane] = from[key * tile<T>];
    }
}

// The way back: gradients of the query and of the table from those of the logits.
template <class T>
void position_gradients(const Tile<T>& tile_, const T* table, int64_t entries, int64_t width, const T* query_rows,
                        const int64_t* entry, int64_t keys, T* all_entries, const T* grad_logits, T* grad_query,
                        T* grad_table) {
    const int used = tile_.vectors * lanes<T>;
    std::fill_n(all_entries, entries * tile<T>, T(0));
    for (int lane = 0; lane < used; ++lane) {
        T* to = all_entries + entry[lane] * tile<T> + lane;
        for (int64_t key = 0; key < keys; ++key) to[key * tile<T>] = grad_logits[key * tile<T> + lane];
    }
    for (int64_t done = 0; done < width; done += chunk<T>) {
        const int64_t channels = std::min<int64_t>(width - done, chunk<T>);
        product<ByPixel, Start::result>(channels, tile_.vectors, entries, table + done * entries, all_entries,
                                        grad_query + done * tile<T>);
        product<ByQuery, Start::result>(entries, chunk<T> / lanes<T>, used, all_entries,
                                        query_rows + done * tile<T>, grad_table + done * entries);
    }
}

// Everything that the scores of a tile need besides the keys.
template <class T>
void prepare_tile(const Call& call, const Tables<T>& tables, const Place<T>& at, const Tile<T>& tile_,
                  const Workspace<T>& work) {
    // Logits to base 2: a factor here instead of one at every score.
    const T factor = T(call.scale * 1.4426950408889634074);
    read_transposed(call.query, call.query_channels, at.batch, at.head, tile_, factor, tile<T>, work.query);
    if (call.has_positions()) {
        const int64_t column_start = call.query_channels - call.column_table.width;
        position_logits(tile_, tables.rows, call.rows.table_length(), call.row_table.width,
                        work.query, tile_.row_entry, at.rows.num_keys, work.table_logits, work.row_logits);
        position_logits(tile_, tables.columns, call.columns.table_length(), call.column_table.width,
                        work.query + column_start * tile<T>, tile_.column_entry, at.columns.num_keys,
                        work.table_logits, work.column_logits);
    }
    if (call.centered) {
        using Int = typename Simd<T>::Int;
        const auto mark = [&](const Axis& axis, const Span& span, const int64_t* query, T* visible) {
            Int* marks = reinterpret_cast<Int*>(visible);
            for (int64_t key = 0; key < span.num_keys; ++key)
                for (int lane = 0; lane < tile<T>; ++lane) {
                    const int64_t offset = span.first_key + key - query[lane] * axis.stride;
                    const Int seen = offset >= -axis.halo && offset <= axis.halo ? -1 : 0;
                    std::memcpy(marks + key * tile<T> + lane, &seen, sizeof seen);
                }
        };
        mark(call.rows, at.rows, tile_.row, work.row_visible);
        mark(call.columns, at.columns, tile_.column, work.column_visible);
    }
}

// Whether the lanes of a vector may see a key.
template <class T>
inline Mask<T> visible(const Workspace<T>& work, int64_t row, int64_t column, int v) {
    Mask<T> seen_row, seen_column;
    std::memcpy(&seen_row, work.row_visible + row * tile<T> + v * lanes<T>, sizeof seen_row);
    std::memcpy(&seen_column, work.column_visible + column * tile<T> + v * lanes<T>, sizeof seen_column);
    return seen_row & seen_column;
}

// Scores of a tile with one row of the window.
template <class T>
void score_row(const Call& call, const Place<T>& at, const Tile<T>& tile_, const Workspace<T>& work, int64_t row,
               T* scores) {
    const int64_t columns = at.columns.num_keys, keys = at.keys();
    for (int64_t done = 0; done < call.query_channels; done += chunk<T>) {
        const int64_t length = std::min<int64_t>(call.query_channels - done, chunk<T>);
        const T* a = work.key + (done / chunk<T> * keys + row * columns) * chunk<T>;
        const T* b = work.query + done * tile<T>;
        if (done > 0)
            product<ByChannel, Start::result>(columns, tile_.vectors, length, a, b, scores);
        else if (call.has_positions())
            product<ByChannel, Start::positions>(columns, tile_.vectors, length, a, b, scores,
                                                 work.row_logits + row * tile<T>, work.column_logits);
        else
            product<ByChannel, Start::zero>(columns, tile_.vectors, length, a, b, scores);
    }
}

// Attend with each query of a block alone, its window holding nothing but what it sees. What the queries of a tile do
// not all see enters products times zero, which NaN and infinity survive.
template <class T, class Attend>
void one_by_one(const Call& call, const Place<T>& at, const Attend& attend) {
    for (int64_t row = 0; row < at.rows.num_queries; ++row)
        for (int64_t column = 0; column < at.columns.num_queries; ++column)
            attend(Place<T>{at.batch, at.head, narrow(at.rows, call.rows, call.zeros, row),
                            narrow(at.columns, call.columns, call.zeros, column)});
}

template <class T>
void attend_forward(const Call& call, const Tables<T>& tables, const Place<T>& at, const Workspace<T>& work) {
    constexpr int L = lanes<T>;
    const int64_t keys = at.keys(), columns = at.columns.num_keys;
    read_window(call.key, call.query_channels, at.batch, at.head, call, at.rows, at.columns, work.key);
    read_window(call.value, call.value_channels, at.batch, at.head, call, at.rows, at.columns, work.value);
    if (call.centered && at.queries() > 1 &&
        !is_finite(work.value, chunks(call.value_channels, chunk<T>) * keys * chunk<T>))
        return one_by_one(call, at, [&](const Place<T>& one) { attend_forward(call, tables, one, work); });
    for (int64_t first = 0; first < at.queries(); first += tile<T>) {
        const Tile<T> tile_(call, at.rows, at.columns, first);
        prepare_tile(call, tables, at, tile_, work);
        const int64_t first_key = tile_.first_row * columns;
        const int64_t seen_keys = (tile_.after_row - tile_.first_row) * columns;
        for (int64_t row = tile_.first_row; row < tile_.after_row; ++row)
            score_row(call, at, tile_, work, row, work.scores + (row - tile_.first_row) * columns * tile<T>);

        for (int v = 0; v < tile_.vectors; ++v) {
            T* scores = work.scores + v * L;
            if (call.centered) {
                const Vector<T> never = all<T>(-std::numeric_limits<T>::infinity());
                T* score = scores;
                for (int64_t row = tile_.first_row; row < tile_.after_row; ++row)
                    for (int64_t column = 0; column < columns; ++column, score += tile<T>)
                        store(score, visible(work, row, column, v) ? load(score) : never);
            }
            // Four chains: one would wait for itself at every step.
            Vector<T> most_of[4], sum = {};
            for (int i = 0; i < 4; ++i) most_of[i] = load(scores + std::min<int64_t>(i, seen_keys - 1) * tile<T>);
            for (int64_t key = 4; key < seen_keys; key += 4)
                for (int i = 0; i < 4; ++i)
                    most_of[i] = larger<T>(load(scores + std::min(key + i, seen_keys - 1) * tile<T>), most_of[i]);
            const Vector<T> most = larger<T>(larger<T>(most_of[0], most_of[1]), larger<T>(most_of[2], most_of[3]));
            for (int64_t key = 0; key < seen_keys; ++key) {
                const Vector<T> power = exp2<T>(load(scores + key * tile<T>) - most);
                store(scores + key * tile<T>, power);
                sum += power;
            }
            store(work.lane[0] + v * L, T(1) / sum);
            if (call.log_sum) store(work.lane[1] + v * L, most + log2<T>(sum));
        }
        for (int64_t done = 0; done < call.value_channels; done += chunk<T>)
            product<ByPixel, Start::zero>(std::min<int64_t>(call.value_channels - done, chunk<T>), tile_.vectors,
                                          seen_keys, work.value + done * keys + first_key * chunk<T>, work.scores,
                                          work.output + done * tile<T>);
        write_transposed(call.output, call.value_channels, at.batch, at.head, tile_, work.lane[0], work.output);
        if (!call.log_sum) continue;
        for (int lane = 0; lane < tile_.count; ++lane) {
            const int64_t query =
                (at.batch * call.rows.num_queries + tile_.row[lane]) * call.columns.num_queries + tile_.column[lane];
            static_cast<T*>(call.log_sum)[query * call.heads + at.head] = work.lane[1][lane];
        }
    }
}

// Adds to the gradients of key, value and tables; the latter are laid out as `Tables` are.
template <class T>
void attend_backward(const Call& call, const Tables<T>& tables, const Place<T>& at, const Workspace<T>& work,
                     T* grad_row_table, T* grad_column_table) {
    constexpr int L = lanes<T>;
    const int64_t keys = at.keys(), columns = at.columns.num_keys;
    const int64_t query_channels = call.query_channels, value_channels = call.value_channels;
    const int64_t key_numbers = chunks(query_channels, chunk<T>) * keys * chunk<T>;
    const int64_t value_numbers = chunks(value_channels, chunk<T>) * keys * chunk<T>;
    const bool positions = call.has_positions();
    read_window(call.key, query_channels, at.batch, at.head, call, at.rows, at.columns, work.key);
    read_window(call.value, value_channels, at.batch, at.head, call, at.rows, at.columns, work.value);
    if (call.centered && at.queries() > 1 &&
        !(is_finite(work.key, key_numbers) && is_finite(work.value, value_numbers) &&
          is_finite<T>(call.query, query_channels, at.batch, at.head, at.rows, at.columns) &&
          is_finite<T>(call.grad_output, value_channels, at.batch, at.head, at.rows, at.columns)))
        return one_by_one(call, at, [&](const Place<T>& one) {
            attend_backward(call, tables, one, work, grad_row_table, grad_column_table);
        });
    std::fill_n(work.grad_key, key_numbers, T(0));
    std::fill_n(work.grad_value, value_numbers, T(0));

    for (int64_t first = 0; first < at.queries(); first += tile<T>) {
        const Tile<T> tile_(call, at.rows, at.columns, first);
        const int used = tile_.vectors * L;
        prepare_tile(call, tables, at, tile_, work);
        read_transposed(call.output, value_channels, at.batch, at.head, tile_, T(1), tile_.count, work.output);
        read_transposed(call.grad_output, value_channels, at.batch, at.head, tile_, T(1), tile_.count,
                        work.grad_output);
        read_rows(call.grad_output, 0, value_channels, at.batch, at.head, tile_, T(1), work.grad_output_rows);
        read_rows(call.query, 0, query_channels, at.batch, at.head, tile_, T(call.scale), work.query_rows);
        std::fill_n(work.grad_query, query_channels * tile<T>, T(0));
        T *log_sum = work.lane[0], *weighted = work.lane[1], *factor = work.lane[2];
        for (int lane = 0; lane < used; ++lane) {
            const int64_t query =
                (at.batch * call.rows.num_queries + tile_.row[lane]) * call.columns.num_queries + tile_.column[lane];
            log_sum[lane] = static_cast<const T*>(call.log_sum)[query * call.heads + at.head];
            weighted[lane] = T(0);
            factor[lane] = T(call.scale);
        }
        for (int64_t channel = 0; channel < value_channels; ++channel)
            for (int v = 0; v < tile_.vectors; ++v) {
                const int64_t i = channel * tile<T> + v * L;
                store(weighted + v * L, load(weighted + v * L) + load(work.output + i) * load(work.grad_output + i));
            }

        if (positions) std::fill_n(work.column_sums, columns * tile<T>, T(0));
        if (call.centered && positions) std::fill_n(work.row_sums, at.rows.num_keys * tile<T>, T(0));  // rows left out

        for (int64_t row = tile_.first_row; row < tile_.after_row; ++row) {
            T *scores = work.scores, *grad_scores = work.grad_scores;
            score_row(call, at, tile_, work, row, scores);
            multiply(tile_, columns, value_channels, work.value + row * columns * chunk<T>, keys * chunk<T>,
                     work.grad_output, grad_scores);
            for (int v = 0; v < tile_.vectors; ++v) {
                const Vector<T> log_sum_v = load(log_sum + v * L), weighted_v = load(weighted + v * L);
                Vector<T> row_sum = {};
                for (int64_t column = 0; column < columns; ++column) {
                    const int64_t at_score = column * tile<T> + v * L;
                    Vector<T> power = exp2<T>(load(scores + at_score) - log_sum_v);
                    Vector<T> gradient = power * (load(grad_scores + at_score) - weighted_v);
                    if (call.centered) {
                        const Mask<T> seen = visible(work, row, column, v);
                        power = seen ? power : Vector<T>{};
                        gradient = seen ? gradient : Vector<T>{};
                    }
                    store(scores + at_score, power);
                    store(grad_scores + at_score, gradient);
                    row_sum += gradient;
                    if (positions)
                        store(work.column_sums + at_score, load(work.column_sums + at_score) + gradient);
                }
                if (positions) store(work.row_sums + row * tile<T> + v * L, row_sum);
            }
            constexpr int chunk_vectors = chunk<T> / L;
            for (int64_t done = 0; done < value_channels; done += chunk<T>)
                product<ByQuery, Start::result>(columns, chunk_vectors, used, scores,
                                                work.grad_output_rows + done * tile<T>,
                                                work.grad_value + done * keys + row * columns * chunk<T>);
            for (int64_t done = 0; done < query_channels; done += chunk<T>) {
                const int64_t window = done * keys + row * columns * chunk<T>;
                product<ByQuery, Start::result>(columns, chunk_vectors, used, grad_scores,
                                                work.query_rows + done * tile<T>, work.grad_key + window);
                product<ByPixel, Start::result>(std::min<int64_t>(query_channels - done, chunk<T>), tile_.vectors, columns,
                                                work.key + window, grad_scores, work.grad_query + done * tile<T>);
            }
        }
        if (positions) {
            const int64_t column_start = query_channels - call.column_table.width;
            read_rows(call.query, column_start, call.column_table.width, at.batch, at.head, tile_,
                      T(call.scale), work.query_columns);
            position_gradients(tile_, tables.rows, call.rows.table_length(), call.row_table.width, work.query_rows,
                               tile_.row_entry, at.rows.num_keys, work.table_logits, work.row_sums, work.grad_query,
                               grad_row_table);
            position_gradients(tile_, tables.columns, call.columns.table_length(), call.column_table.width,
                               work.query_columns, tile_.column_entry, at.columns.num_keys, work.table_logits,
                               work.column_sums,
                               work.grad_query + column_start * tile<T>, grad_column_table);
        }
        write_transposed(call.grad_query, query_channels, at.batch, at.head, tile_, factor, work.grad_query);
    }
    add_window(call.grad_key, query_channels, at.batch, at.head, call, at.rows, at.columns, work.grad_key);
    add_window(call.grad_value, value_channels, at.batch, at.head, call, at.rows, at.columns, work.grad_value);
}

}  // namespace halonet::HALONET_ISA
