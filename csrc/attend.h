// Halo attention of one head in one block, forward and backward. Scores are kept as [keys, queries]: the queries of a
// tile lie along the lanes, so that masks, softmax and relative positions need no operation across lanes.
#pragma once

#include <limits>

#include "check.h"
#include "group.h"

namespace halonet::HALONET_ISA {

// Pieces of one memory, each aligned to 64 bytes. Without memory it only counts.
struct Arena {
    char* memory;
    Count size = 0;  // bytes in all

    template <class T>
    T* take(Count count) {
        T* piece = memory ? reinterpret_cast<T*>(memory + size.value()) : nullptr;
        size = size + (count * sizeof(T)).rounded_up_to(64);
        return piece;
    }
};

// All the memory that one thread works in.
template <class T>
struct Workspace {
    T *key, *value, *grad_key, *grad_value;                     // windows
    T *query, *output, *grad_output, *grad_query;               // tiles as [channels, lanes]
    T *query_rows, *query_columns, *grad_output_rows;           // tiles as [chunks, lanes, channels of a chunk]
    T *table_logits, *row_logits, *column_logits;               // [entries or keys, lanes]
    T *row_sums, *column_sums;                                  // the same, of the gradients
    T *row_visible, *column_visible;                            // [keys, lanes]: -1 where a query sees it, else 0
    T *scores, *grad_scores;                                    // [keys, lanes]
    T *lane[4];                                                 // one number for each lane

    Workspace(const Call& call, bool backward, Arena& arena) {
        const Count rows = most_keys(call.rows, call.zeros), columns = most_keys(call.columns, call.zeros);
        const Count keys = rows * columns;
        const Count query_chunks = chunks(call.query_channels, chunk<T>);
        const Count value_chunks = chunks(call.value_channels, chunk<T>);
        const auto take = [&](T*& pointer, Count count) { pointer = arena.take<T>(count); };
        take(key, query_chunks * keys * chunk<T>);
        take(value, value_chunks * keys * chunk<T>);
        take(query, query_chunks * chunk<T> * tile_lanes<T>);
        take(output, value_chunks * chunk<T> * tile_lanes<T>);
        take(table_logits, Count(std::max(call.rows.table_length(), call.columns.table_length())) * tile_lanes<T>);
        take(row_logits, rows * tile_lanes<T>);
        take(column_logits, columns * tile_lanes<T>);
        take(row_visible, rows * tile_lanes<T>);
        take(column_visible, columns * tile_lanes<T>);
        for (T*& each : lane) take(each, tile_lanes<T>);
        take(scores, (backward ? columns : keys) * tile_lanes<T>);
        if (!backward) return;
        take(grad_scores, columns * tile_lanes<T>);
        take(row_sums, rows * tile_lanes<T>);
        take(column_sums, columns * tile_lanes<T>);
        take(grad_key, query_chunks * keys * chunk<T>);
        take(grad_value, value_chunks * keys * chunk<T>);
        take(grad_output, value_chunks * chunk<T> * tile_lanes<T>);
        take(grad_query, query_chunks * chunk<T> * tile_lanes<T>);
        take(query_rows, query_chunks * chunk<T> * tile_lanes<T>);
        take(query_columns, query_chunks * chunk<T> * tile_lanes<T>);
        take(grad_output_rows, value_chunks * chunk<T> * tile_lanes<T>);
    }
};

// Both tables, laid out for the products; read by all threads.
template <class T>
struct Tables {
    const T *rows, *columns;
};

// Products of pixels, whose chunks of channels are `distance` elements apart, with a tile of as many channels.
template <class T>
void multiply(const Tile<T>& tile, int64_t pixels, int64_t channels, const T* a, int64_t distance, const T* b,
              T* result) {
    for (int64_t done = 0; done < channels; done += chunk<T>, a += distance, b += chunk<T> * tile_lanes<T>) {
        const int64_t length = std::min<int64_t>(channels - done, chunk<T>);
        if (done == 0)
            product<ByChannel, Start::zero>(pixels, tile.vectors, length, a, b, result);
        else
            product<ByChannel, Start::result>(pixels, tile.vectors, length, a, b, result);
    }
}

// Logits that a query gives to the keys of a window along one axis: the products with the whole table, and of those
// the ones that belong to the query's own offsets.
template <class T>
void position_logits(const Tile<T>& tile, const T* table, int64_t entries, int64_t width, const T* query,
                     const int64_t* entry, int64_t keys, T* all_entries, T* logits) {
    multiply(tile, entries, width, table, entries * chunk<T>, query, all_entries);
    const int used = tile.vectors * lanes<T>;
    if (width == 0) std::fill_n(all_entries, entries * tile_lanes<T>, T(0));
    for (int lane = 0; lane < used; ++lane) {
        const T* from = all_entries + entry[lane] * tile_lanes<T> + lane;
        for (int64_t key = 0; key < keys; ++key) logits[key * tile_lanes<T> + lane] = from[key * tile_lanes<T>];
    }
}

// Its backward: gradients of the query and of the table from those of the logits.
template <class T>
void position_gradients(const Tile<T>& tile, const T* table, int64_t entries, int64_t width, const T* query_rows,
                        const int64_t* entry, int64_t keys, T* all_entries, const T* grad_logits, T* grad_query,
                        T* grad_table) {
    const int used = tile.vectors * lanes<T>;
    std::fill_n(all_entries, entries * tile_lanes<T>, T(0));
    for (int lane = 0; lane < used; ++lane) {
        T* to = all_entries + entry[lane] * tile_lanes<T> + lane;
        for (int64_t key = 0; key < keys; ++key) to[key * tile_lanes<T>] = grad_logits[key * tile_lanes<T> + lane];
    }
    for (int64_t done = 0; done < width; done += chunk<T>) {
        const int64_t channels = std::min<int64_t>(width - done, chunk<T>);
        product<ByPixel, Start::result>(channels, tile.vectors, entries, table + done * entries, all_entries,
                                        grad_query + done * tile_lanes<T>);
        product<ByQuery, Start::result>(entries, chunk<T> / lanes<T>, used, all_entries,
                                        query_rows + done * tile_lanes<T>, grad_table + done * entries);
    }
}

// Prepare what the scores of a tile need besides the keys.
template <class T>
void prepare_tile(const Call& call, const Tables<T>& tables, const Group& group, const Tile<T>& tile,
                  const Workspace<T>& work) {
    // Logits to base 2: a factor here instead of one at every score.
    const T factor = T(call.scale * 1.4426950408889634074);
    read_transposed(call.query, call.query_channels, group, tile, factor, tile_lanes<T>, work.query);
    if (call.has_positions()) {
        const int64_t column_start = call.query_channels - call.column_table.width;
        position_logits(tile, tables.rows, call.rows.table_length(), call.row_table.width,
                        work.query, tile.row_entry, group.rows.num_keys, work.table_logits, work.row_logits);
        position_logits(tile, tables.columns, call.columns.table_length(), call.column_table.width,
                        work.query + column_start * tile_lanes<T>, tile.column_entry, group.columns.num_keys,
                        work.table_logits, work.column_logits);
    }
    if (call.centered) {
        using Int = typename Simd<T>::Int;
        const auto mark = [&](const Axis& axis, const Span& span, const int64_t* query, T* visible) {
            Int* marks = reinterpret_cast<Int*>(visible);
            for (int64_t key = 0; key < span.num_keys; ++key)
                for (int lane = 0; lane < tile_lanes<T>; ++lane) {
                    const int64_t offset = span.first_key + key - query[lane] * axis.stride;
                    const Int seen = offset >= -axis.halo && offset <= axis.halo ? -1 : 0;
                    std::memcpy(marks + key * tile_lanes<T> + lane, &seen, sizeof seen);
                }
        };
        mark(call.rows, group.rows, tile.row, work.row_visible);
        mark(call.columns, group.columns, tile.column, work.column_visible);
    }
}

// Which lanes of a vector see a key.
template <class T>
inline Mask<T> visible(const Workspace<T>& work, int64_t row, int64_t column, int v) {
    Mask<T> seen_row, seen_column;
    std::memcpy(&seen_row, work.row_visible + row * tile_lanes<T> + v * lanes<T>, sizeof seen_row);
    std::memcpy(&seen_column, work.column_visible + column * tile_lanes<T> + v * lanes<T>, sizeof seen_column);
    return seen_row & seen_column;
}

// Scores of a tile with one row of the window.
template <class T>
void score_row(const Call& call, const Group& group, const Tile<T>& tile, const Workspace<T>& work, int64_t row,
               T* scores) {
    const int64_t columns = group.columns.num_keys, keys = group.num_keys();
    for (int64_t done = 0; done < call.query_channels; done += chunk<T>) {
        const int64_t length = std::min<int64_t>(call.query_channels - done, chunk<T>);
        const T* a = work.key + (done / chunk<T> * keys + row * columns) * chunk<T>;
        const T* b = work.query + done * tile_lanes<T>;
        if (done > 0)
            product<ByChannel, Start::result>(columns, tile.vectors, length, a, b, scores);
        else if (call.has_positions())
            product<ByChannel, Start::positions>(columns, tile.vectors, length, a, b, scores,
                                                 work.row_logits + row * tile_lanes<T>, work.column_logits);
        else
            product<ByChannel, Start::zero>(columns, tile.vectors, length, a, b, scores);
    }
}

// Attend with each query of a group alone, in a window of only the keys that it sees. A tile multiplies a key that some
// of its queries do not see by zero, which gives NaN where the key holds NaN or infinity.
template <class Attend>
void one_by_one(const Call& call, const Group& group, const Attend& attend) {
    for (int64_t row = 0; row < group.rows.num_queries; ++row)
        for (int64_t column = 0; column < group.columns.num_queries; ++column)
            attend(Group{group.batch, group.head, narrow(group.rows, call.rows, call.zeros, row),
                         narrow(group.columns, call.columns, call.zeros, column)});
}

// The log-sum-exp of a query of a tile.
template <class T>
inline T& log_sum_of(const Call& call, const Group& group, const Tile<T>& tile, int lane) {
    const int64_t query =
        (group.batch * call.rows.num_queries + tile.row[lane]) * call.columns.num_queries + tile.column[lane];
    return static_cast<T*>(call.log_sum)[query * call.heads + group.head];
}

template <class T>
void attend_forward(const Call& call, const Tables<T>& tables, const Group& group, const Workspace<T>& work) {
    constexpr int L = lanes<T>;
    const int64_t keys = group.num_keys(), columns = group.columns.num_keys;
    read_window(call.key, call.query_channels, call, group, work.key);
    read_window(call.value, call.value_channels, call, group, work.value);
    if (call.centered && group.num_queries() > 1 &&
        !is_finite(work.value, chunks(call.value_channels, chunk<T>) * keys * chunk<T>))
        return one_by_one(call, group, [&](const Group& query) { attend_forward(call, tables, query, work); });
    for (int64_t first = 0; first < group.num_queries(); first += tile_lanes<T>) {
        const Tile<T> tile(call, group, first);
        prepare_tile(call, tables, group, tile, work);
        const int64_t first_key = tile.first_row * columns;
        const int64_t seen_keys = (tile.after_row - tile.first_row) * columns;
        for (int64_t row = tile.first_row; row < tile.after_row; ++row)
            score_row(call, group, tile, work, row, work.scores + (row - tile.first_row) * columns * tile_lanes<T>);

        for (int v = 0; v < tile.vectors; ++v) {
            T* scores = work.scores + v * L;
            if (call.centered) {
                const Vector<T> never = all<T>(-std::numeric_limits<T>::infinity());
                T* score = scores;
                for (int64_t row = tile.first_row; row < tile.after_row; ++row)
                    for (int64_t column = 0; column < columns; ++column, score += tile_lanes<T>)
                        store(score, visible(work, row, column, v) ? load(score) : never);
            }
            // Four at a time: each step of a single maximum would wait for the one before.
            Vector<T> maxima[4], sum = {};
            for (int i = 0; i < 4; ++i) maxima[i] = load(scores + std::min<int64_t>(i, seen_keys - 1) * tile_lanes<T>);
            for (int64_t key = 4; key < seen_keys; key += 4)
                for (int i = 0; i < 4; ++i)
                    maxima[i] = larger<T>(load(scores + std::min(key + i, seen_keys - 1) * tile_lanes<T>), maxima[i]);
            const Vector<T> maximum = larger<T>(larger<T>(maxima[0], maxima[1]), larger<T>(maxima[2], maxima[3]));
            for (int64_t key = 0; key < seen_keys; ++key) {
                const Vector<T> weight = exp2<T>(load(scores + key * tile_lanes<T>) - maximum);
                store(scores + key * tile_lanes<T>, weight);
                sum += weight;
            }
            store(work.lane[0] + v * L, T(1) / sum);
            if (call.log_sum) store(work.lane[1] + v * L, maximum + log2<T>(sum));
        }
        for (int64_t done = 0; done < call.value_channels; done += chunk<T>)
            product<ByPixel, Start::zero>(std::min<int64_t>(call.value_channels - done, chunk<T>), tile.vectors,
                                          seen_keys, work.value + done * keys + first_key * chunk<T>, work.scores,
                                          work.output + done * tile_lanes<T>);
        write_transposed(call.output, call.value_channels, group, tile, work.lane[0], work.output);
        if (!call.log_sum) continue;
        for (int lane = 0; lane < tile.count; ++lane) log_sum_of(call, group, tile, lane) = work.lane[1][lane];
    }
}

// Adds to the gradients of key, value and tables; the latter are laid out as `Tables` are.
template <class T>
void attend_backward(const Call& call, const Tables<T>& tables, const Group& group, const Workspace<T>& work,
                     T* grad_row_table, T* grad_column_table) {
    constexpr int L = lanes<T>;
    const int64_t keys = group.num_keys(), columns = group.columns.num_keys;
    const int64_t query_channels = call.query_channels, value_channels = call.value_channels;
    const int64_t key_numbers = chunks(query_channels, chunk<T>) * keys * chunk<T>;
    const int64_t value_numbers = chunks(value_channels, chunk<T>) * keys * chunk<T>;
    const bool positions = call.has_positions();
    read_window(call.key, query_channels, call, group, work.key);
    read_window(call.value, value_channels, call, group, work.value);
    if (call.centered && group.num_queries() > 1 &&
        !(is_finite(work.key, key_numbers) && is_finite(work.value, value_numbers) &&
          is_finite<T>(call.query, query_channels, group) &&
          is_finite<T>(call.grad_output, value_channels, group)))
        return one_by_one(call, group, [&](const Group& query) {
            attend_backward(call, tables, query, work, grad_row_table, grad_column_table);
        });
    std::fill_n(work.grad_key, key_numbers, T(0));
    std::fill_n(work.grad_value, value_numbers, T(0));

    for (int64_t first = 0; first < group.num_queries(); first += tile_lanes<T>) {
        const Tile<T> tile(call, group, first);
        const int used = tile.vectors * L;
        prepare_tile(call, tables, group, tile, work);
        read_transposed(call.output, value_channels, group, tile, T(1), tile.count, work.output);
        read_transposed(call.grad_output, value_channels, group, tile, T(1), tile.count,
                        work.grad_output);
        read_rows(call.grad_output, 0, value_channels, group, tile, T(1), work.grad_output_rows);
        read_rows(call.query, 0, query_channels, group, tile, T(call.scale), work.query_rows);
        std::fill_n(work.grad_query, query_channels * tile_lanes<T>, T(0));
        T *log_sum = work.lane[0], *delta = work.lane[1], *factor = work.lane[2];
        for (int lane = 0; lane < used; ++lane) {
            log_sum[lane] = log_sum_of(call, group, tile, lane);
            delta[lane] = T(0);
            factor[lane] = T(call.scale);
        }
        for (int64_t channel = 0; channel < value_channels; ++channel)
            for (int v = 0; v < tile.vectors; ++v) {
                const int64_t i = channel * tile_lanes<T> + v * L;
                store(delta + v * L, load(delta + v * L) + load(work.output + i) * load(work.grad_output + i));
            }

        if (positions) std::fill_n(work.column_sums, columns * tile_lanes<T>, T(0));
        if (call.centered && positions)  // for rows that the tile does not see
            std::fill_n(work.row_sums, group.rows.num_keys * tile_lanes<T>, T(0));

        for (int64_t row = tile.first_row; row < tile.after_row; ++row) {
            T *scores = work.scores, *grad_scores = work.grad_scores;
            score_row(call, group, tile, work, row, scores);
            multiply(tile, columns, value_channels, work.value + row * columns * chunk<T>, keys * chunk<T>,
                     work.grad_output, grad_scores);
            for (int v = 0; v < tile.vectors; ++v) {
                const Vector<T> log_sum_v = load(log_sum + v * L), delta_v = load(delta + v * L);
                Vector<T> row_sum = {};
                for (int64_t column = 0; column < columns; ++column) {
                    const int64_t at_score = column * tile_lanes<T> + v * L;
                    Vector<T> weight = exp2<T>(load(scores + at_score) - log_sum_v);
                    Vector<T> gradient = weight * (load(grad_scores + at_score) - delta_v);
                    if (call.centered) {
                        const Mask<T> seen = visible(work, row, column, v);
                        weight = seen ? weight : Vector<T>{};
                        gradient = seen ? gradient : Vector<T>{};
                    }
                    store(scores + at_score, weight);
                    store(grad_scores + at_score, gradient);
                    row_sum += gradient;
                    if (positions)
                        store(work.column_sums + at_score, load(work.column_sums + at_score) + gradient);
                }
                if (positions) store(work.row_sums + row * tile_lanes<T> + v * L, row_sum);
            }
            constexpr int chunk_vectors = chunk<T> / L;
            for (int64_t done = 0; done < value_channels; done += chunk<T>)
                product<ByQuery, Start::result>(columns, chunk_vectors, used, scores,
                                                work.grad_output_rows + done * tile_lanes<T>,
                                                work.grad_value + done * keys + row * columns * chunk<T>);
            for (int64_t done = 0; done < query_channels; done += chunk<T>) {
                const int64_t window = done * keys + row * columns * chunk<T>;
                product<ByQuery, Start::result>(columns, chunk_vectors, used, grad_scores,
                                                work.query_rows + done * tile_lanes<T>, work.grad_key + window);
                product<ByPixel, Start::result>(std::min<int64_t>(query_channels - done, chunk<T>), tile.vectors,
                                                columns, work.key + window, grad_scores,
                                                work.grad_query + done * tile_lanes<T>);
            }
        }
        if (positions) {
            const int64_t column_start = query_channels - call.column_table.width;
            read_rows(call.query, column_start, call.column_table.width, group, tile,
                      T(call.scale), work.query_columns);
            position_gradients(tile, tables.rows, call.rows.table_length(), call.row_table.width, work.query_rows,
                               tile.row_entry, group.rows.num_keys, work.table_logits, work.row_sums, work.grad_query,
                               grad_row_table);
            position_gradients(tile, tables.columns, call.columns.table_length(), call.column_table.width,
                               work.query_columns, tile.column_entry, group.columns.num_keys, work.table_logits,
                               work.column_sums,
                               work.grad_query + column_start * tile_lanes<T>, grad_column_table);
        }
        write_transposed(call.grad_query, query_channels, group, tile, factor, work.grad_query);
    }
    add_window(call.grad_key, query_channels, call, group, work.grad_key);
    add_window(call.grad_value, value_channels, call, group, work.grad_value);
}

}  // namespace halonet::HALONET_ISA
