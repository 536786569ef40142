// The queries of one block, the keys they see, and the copies between images and what the products work on.
#pragma once

#include <algorithm>

#include "call.h"
#include "product.h"

namespace halonet::HALONET_ISA {

// One axis of a group. With a stride beyond the block, each query is its own group.
struct Span {
    int64_t first_query, num_queries, first_pixel;
    int64_t first_key, num_keys;  // the window, clipped to the image unless zeros surround it
};

inline bool is_sparse(const Axis& axis) { return axis.stride > axis.block; }

inline int64_t count_groups(const Axis& axis) { return is_sparse(axis) ? axis.num_queries : axis.num_blocks; }

// Groups whose numbers differ by at least this see no key in common.
inline int64_t count_phases(const Axis& axis) {
    const int64_t window = axis.block + 2 * axis.halo;
    const int64_t reach = is_sparse(axis) ? window + axis.block - 1 : window;
    const int64_t step = is_sparse(axis) ? axis.stride : axis.block;
    return (reach + step - 1) / step;
}

// Give a span its keys, from one pixel to before another, without those that do not exist.
inline Span with_keys(Span span, const Axis& axis, bool zeros, int64_t first_key, int64_t after_key) {
    if (!zeros) {
        first_key = std::max<int64_t>(first_key, 0);
        after_key = std::min(after_key, axis.size);
    }
    span.first_key = first_key;
    span.num_keys = after_key - first_key;
    return span;
}

inline Span make_span(const Axis& axis, bool zeros, bool centered, int64_t index) {
    const int64_t block = is_sparse(axis) ? index * axis.stride / axis.block : index;
    const int64_t top = block * axis.block, end = std::min(top + axis.block, axis.size);
    const int64_t first = is_sparse(axis) ? index : (top + axis.stride - 1) / axis.stride;
    const int64_t after = is_sparse(axis) ? index + 1 : (end + axis.stride - 1) / axis.stride;
    const int64_t first_pixel = first * axis.stride, last_pixel = (after - 1) * axis.stride;
    return with_keys({first, after - first, first_pixel, 0, 0}, axis, zeros,
                     (centered ? first_pixel : top) - axis.halo,
                     (centered ? last_pixel + 1 : top + axis.block) + axis.halo);
}

// One query of a span alone, with the keys that are within the halo of it.
inline Span narrow(const Span& span, const Axis& axis, bool zeros, int64_t slot) {
    const int64_t pixel = (span.first_query + slot) * axis.stride;
    return with_keys({span.first_query + slot, 1, span.first_pixel + slot * axis.offset_stride, 0, 0}, axis, zeros,
                     pixel - axis.halo, pixel + axis.halo + 1);
}

// Most keys that any group sees along an axis.
inline int64_t most_keys(const Axis& axis, bool zeros) {
    const int64_t window = axis.block + 2 * axis.halo;
    return zeros ? window : std::min(window, axis.size);
}

// The queries of one block, and the keys they see, in one head of one image.
struct Group {
    int64_t batch, head;
    Span rows, columns;

    int64_t num_keys() const { return rows.num_keys * columns.num_keys; }
    int64_t num_queries() const { return rows.num_queries * columns.num_queries; }
};

inline int64_t chunks(int64_t channels, int per_chunk) { return (channels + per_chunk - 1) / per_chunk; }

// The first channel of a pixel in the group's image and head.
template <class T>
inline T* pixel(const Image& image, const Group& group, int64_t row, int64_t column) {
    return static_cast<T*>(image.data) + group.batch * image.batch_stride + row * image.row_stride +
           column * image.column_stride + group.head * image.head_stride;
}

// Copy up to a chunk of channels, the rest of the chunk becoming zero.
template <class T>
inline void copy_chunk(const T* from, int64_t channels, T* to) {
    if (channels >= chunk<T>) {
        std::memcpy(to, from, 64);
        return;
    }
    for (int i = 0; i < chunk<T>; ++i) to[i] = i < channels ? from[i] : T(0);
}

// The keys of a window along one axis that lie inside the image: `first` to before `after`, counted in the window.
struct Inside {
    int64_t first, after;

    Inside(const Span& span, const Axis& axis)
        : first(std::max<int64_t>(0, -span.first_key)), after(std::min(span.num_keys, axis.size - span.first_key)) {}
};

// Copy a window to [chunks, keys, channels of a chunk], zeros outside the image.
template <class T>
void read_window(const Image& image, int64_t channels, const Call& call, const Group& group, T* window) {
    const Span &rows = group.rows, &columns = group.columns;
    const Inside inside_rows(rows, call.rows), inside(columns, call.columns);
    for (int64_t done = 0; done < channels; done += chunk<T>)
        for (int64_t r = 0; r < rows.num_keys; ++r, window += columns.num_keys * chunk<T>) {
            if (r < inside_rows.first || r >= inside_rows.after) {
                std::fill_n(window, columns.num_keys * chunk<T>, T(0));
                continue;
            }
            std::fill_n(window, inside.first * chunk<T>, T(0));
            std::fill_n(window + inside.after * chunk<T>, (columns.num_keys - inside.after) * chunk<T>, T(0));
            const T* from = pixel<T>(image, group, rows.first_key + r, columns.first_key + inside.first) + done;
            for (int64_t c = inside.first; c < inside.after; ++c, from += image.column_stride)
                copy_chunk(from, channels - done, window + c * chunk<T>);
        }
}

// Add a window to an image; what lies outside is dropped.
template <class T>
void add_window(const Image& image, int64_t channels, const Call& call, const Group& group, const T* window) {
    constexpr int L = lanes<T>;
    const Span &rows = group.rows, &columns = group.columns;
    const Inside inside_rows(rows, call.rows), inside(columns, call.columns);
    for (int64_t done = 0; done < channels; done += chunk<T>)
        for (int64_t r = 0; r < rows.num_keys; ++r, window += columns.num_keys * chunk<T>) {
            if (r < inside_rows.first || r >= inside_rows.after) continue;
            T* to = pixel<T>(image, group, rows.first_key + r, columns.first_key + inside.first) + done;
            const int64_t now = channels - done;
            for (int64_t c = inside.first; c < inside.after; ++c, to += image.column_stride) {
                const T* from = window + c * chunk<T>;
                if (now >= chunk<T>)
                    for (int i = 0; i < chunk<T>; i += L) store(to + i, load(to + i) + load(from + i));
                else
                    for (int i = 0; i < now; ++i) to[i] += from[i];
            }
        }
}

// Whether no number of a window is NaN or infinite; their count is a multiple of a vector.
template <class T>
bool is_finite(const T* window, int64_t count) {
    constexpr int L = lanes<T>;
    Vector<T> sums[4] = {};  // of x - x: 0, or NaN
    const auto add = [&](Vector<T> x, int chain) { sums[chain] += x - x; };
    int64_t i = 0;
    for (; i + 4 * L <= count; i += 4 * L)
        for (int chain = 0; chain < 4; ++chain) add(load(window + i + chain * L), chain);
    for (; i < count; i += L) add(load(window + i), 0);
    return is_zero<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Whether no channel of a group's queries in an image is NaN or infinite.
template <class T>
bool is_finite(const Image& image, int64_t channels, const Group& group) {
    constexpr int L = lanes<T>;
    const Span &rows = group.rows, &columns = group.columns;
    Vector<T> sum = {};
    for (int64_t r = 0; r < rows.num_queries; ++r)
        for (int64_t c = 0; c < columns.num_queries; ++c) {
            const T* from = pixel<T>(image, group, rows.first_query + r, columns.first_query + c);
            for (int64_t done = 0; done < channels; done += L) {
                const Vector<T> x =
                    channels - done >= L ? load(from + done) : load_some(from + done, channels - done);
                sum += x - x;
            }
        }
    return is_zero<T>(sum);
}

// A tile of queries of a group: lane i holds query number `first + i` of the group, in rows of the image.
template <class T>
struct Tile {
    int count;  // lanes from `count` on hold no query: they repeat the first, whose gradient is zero there
    int vectors;
    int64_t row[tile_lanes<T>], column[tile_lanes<T>];  // on the query grid; of lane 0 where there is no query
    int64_t row_entry[tile_lanes<T>], column_entry[tile_lanes<T>];  // of the tables, for the window's first key
    int64_t first_row, after_row;  // the rows of the window that its queries see

    Tile(const Call& call, const Group& group, int64_t first) {
        const Span &rows = group.rows, &columns = group.columns;
        count = int(std::min<int64_t>(group.num_queries() - first, tile_lanes<T>));
        vectors = (count + lanes<T> - 1) / lanes<T>;
        // Stepped from lane to lane: a division for each lane would take longer than the rest.
        const int64_t first_i = first / columns.num_queries, first_j = first % columns.num_queries;
        int64_t i = first_i, j = first_j;
        for (int lane = 0; lane < tile_lanes<T>; ++lane) {
            if (lane == count) i = first_i, j = first_j;
            row[lane] = rows.first_query + i;
            column[lane] = columns.first_query + j;
            row_entry[lane] = entry(call.rows, rows, i);
            column_entry[lane] = entry(call.columns, columns, j);
            if (lane < count && ++j == columns.num_queries) j = 0, ++i;
        }
        first_row = 0;
        after_row = rows.num_keys;
        if (call.centered) {
            const int64_t first_pixel = row[0] * call.rows.stride, last_pixel = row[count - 1] * call.rows.stride;
            first_row = std::max(first_row, first_pixel - call.rows.halo - rows.first_key);
            after_row = std::min(after_row, last_pixel + call.rows.halo + 1 - rows.first_key);
        }
    }

    static int64_t entry(const Axis& axis, const Span& span, int64_t slot) {
        const int64_t counts_as = span.first_pixel + slot * axis.offset_stride;
        return span.first_key - counts_as + axis.block + axis.halo - 1;
    }
};

// Read `channels` of the tile's queries from an image, times a factor, to [channels, lanes]; lanes from `count` on
// become zero.
template <class T>
void read_transposed(const Image& image, int64_t channels, const Group& group, const Tile<T>& tile, T factor, int count,
                     T* result) {
    constexpr int L = lanes<T>;
    for (int v = 0; v < tile.vectors; ++v)
        for (int64_t done = 0; done < channels; done += L) {
            Vector<T> square[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) {
                const int lane = v * L + i;
                square[i] = Vector<T>{};
                if (lane >= count) continue;
                const T* from = pixel<T>(image, group, tile.row[lane], tile.column[lane]) + done;
                square[i] = channels - done >= L ? load(from) : load_some(from, channels - done);
            }
            transpose<T>(square);
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) store(result + (done + i) * tile_lanes<T> + v * L, square[i] * factor);
        }
}

// Write [channels, lanes] times a factor for each lane to the tile's queries in an image.
template <class T>
void write_transposed(const Image& image, int64_t channels, const Group& group, const Tile<T>& tile, const T* factor,
                      const T* from) {
    constexpr int L = lanes<T>;
    for (int v = 0; v < tile.vectors; ++v)
        for (int64_t done = 0; done < channels; done += L) {
            Vector<T> square[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i)
                square[i] = load(from + (done + i) * tile_lanes<T> + v * L) * load(factor + v * L);
            transpose<T>(square);
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) {
                const int lane = v * L + i;
                if (lane >= tile.count) break;
                T* to = pixel<T>(image, group, tile.row[lane], tile.column[lane]) + done;
                if (channels - done >= L)
                    store(to, square[i]);
                else
                    std::memcpy(to, &square[i], (channels - done) * sizeof(T));
            }
        }
}

// Read `channels` of the tile's queries, times a factor, to [chunks, lanes, channels of a chunk].
template <class T>
void read_rows(const Image& image, int64_t first_channel, int64_t channels, const Group& group, const Tile<T>& tile,
               T factor, T* result) {
    const int used = tile.vectors * lanes<T>;
    for (int64_t done = 0; done < channels; done += chunk<T>, result += tile_lanes<T> * chunk<T>)
        for (int lane = 0; lane < used; ++lane) {
            const T* from = pixel<T>(image, group, tile.row[lane], tile.column[lane]) + first_channel + done;
            T* to = result + lane * chunk<T>;
            copy_chunk(from, lane < tile.count ? channels - done : 0, to);
            for (int i = 0; i < chunk<T>; ++i) to[i] *= factor;
        }
}

// Copy a table to [chunks, entries, channels of a chunk].
template <class T>
void read_table(const Table& table, int64_t entries, T* result) {
    const T* from = static_cast<const T*>(table.data);
    for (int64_t done = 0; done < table.width; done += chunk<T>)
        for (int64_t t = 0; t < entries; ++t, result += chunk<T>)
            copy_chunk(from + t * table.width + done, table.width - done, result);
}

// Copy it back.
template <class T>
void write_table(const T* from, int64_t entries, int64_t width, T* table) {
    for (int64_t done = 0; done < width; done += chunk<T>)
        for (int64_t t = 0; t < entries; ++t, from += chunk<T>)
            std::copy_n(from, std::min<int64_t>(width - done, chunk<T>), table + t * width + done);
}

}  // namespace halonet::HALONET_ISA
