// The queries of one block, the keys they see, and the copies between images and what the products work on.
#pragma once

#include <algorithm>

#include "call.h"
#include "product.h"

namespace halonet::HALONET_ISA {

// One axis of a group: the queries of one block. With a stride beyond the block, each query is its own group.
struct Span {
    int first_query, num_queries, first_pixel;
    int first_key, num_keys;  // the window, clipped to the image unless zeros surround it
};

inline bool is_sparse(const Axis& axis) { return axis.stride > axis.block; }

inline int count_groups(const Axis& axis) { return int(is_sparse(axis) ? axis.num_queries : axis.num_blocks); }

// Groups whose numbers differ by at least this see no key in common.
inline int count_phases(const Axis& axis) {
    const int64_t window = axis.block + 2 * axis.halo;
    const int64_t reach = is_sparse(axis) ? window + axis.block - 1 : window;
    const int64_t step = is_sparse(axis) ? axis.stride : axis.block;
    return int((reach + step - 1) / step);
}

inline Span make_span(const Axis& axis, bool zeros, bool centered, int64_t group) {
    const int64_t block = is_sparse(axis) ? group * axis.stride / axis.block : group;
    const int64_t top = block * axis.block, end = std::min(top + axis.block, axis.size);
    const int64_t first = is_sparse(axis) ? group : (top + axis.stride - 1) / axis.stride;
    const int64_t after = is_sparse(axis) ? group + 1 : (end + axis.stride - 1) / axis.stride;
    const int64_t first_pixel = first * axis.stride, last_pixel = (after - 1) * axis.stride;
    int64_t first_key = (centered ? first_pixel : top) - axis.halo;
    int64_t after_key = (centered ? last_pixel + 1 : top + axis.block) + axis.halo;
    if (!zeros) {
        first_key = std::max<int64_t>(first_key, 0);
        after_key = std::min(after_key, axis.size);
    }
    return {int(first), int(after - first), int(first_pixel), int(first_key), int(after_key - first_key)};
}

// Most keys that any group sees along an axis.
inline int most_keys(const Axis& axis, bool zeros) {
    const int64_t window = axis.block + 2 * axis.halo;
    return int(zeros ? window : std::min(window, axis.size));
}

inline int chunks(int64_t channels, int per_chunk) { return int((channels + per_chunk - 1) / per_chunk); }

// Where an image's channels of one head begin.
template <class T>
inline T* pixel(const Image& image, int64_t batch, int64_t row, int64_t column, int64_t head) {
    return static_cast<T*>(image.data) + batch * image.batch_stride + row * image.row_stride +
           column * image.column_stride + head * image.head_stride;
}

// Copy up to a chunk of channels, the rest of the chunk becoming zero.
template <class T>
inline void copy_chunk(const T* from, int channels, T* to) {
    if (channels >= chunk<T>) {
        std::memcpy(to, from, 64);
        return;
    }
    for (int i = 0; i < chunk<T>; ++i) to[i] = i < channels ? from[i] : T(0);
}

// The keys of a window along one axis that lie inside the image: `first` to before `after`, counted in the window.
struct Inside {
    int first, after;

    Inside(const Span& span, const Axis& axis)
        : first(std::max(0, -span.first_key)), after(int(std::min<int64_t>(span.num_keys, axis.size - span.first_key))) {}
};

// Copy a window to [chunks, keys, channels of a chunk], zeros outside the image.
template <class T>
void read_window(const Image& image, int channels, int64_t batch, int64_t head, const Call& call, const Span& rows,
                 const Span& columns, T* window) {
    const Inside inside_rows(rows, call.rows), inside(columns, call.columns);
    for (int done = 0; done < channels; done += chunk<T>)
        for (int r = 0; r < rows.num_keys; ++r, window += columns.num_keys * chunk<T>) {
            if (r < inside_rows.first || r >= inside_rows.after) {
                std::fill_n(window, columns.num_keys * chunk<T>, T(0));
                continue;
            }
            std::fill_n(window, inside.first * chunk<T>, T(0));
            std::fill_n(window + inside.after * chunk<T>, (columns.num_keys - inside.after) * chunk<T>, T(0));
            const T* from =
                pixel<T>(image, batch, rows.first_key + r, columns.first_key + inside.first, head) + done;
            for (int c = inside.first; c < inside.after; ++c, from += image.column_stride)
                copy_chunk(from, channels - done, window + c * chunk<T>);
        }
}

// Add a window to an image; what lies outside is dropped.
template <class T>
void add_window(const Image& image, int channels, int64_t batch, int64_t head, const Call& call, const Span& rows,
                const Span& columns, const T* window) {
    constexpr int L = lanes<T>;
    const Inside inside_rows(rows, call.rows), inside(columns, call.columns);
    for (int done = 0; done < channels; done += chunk<T>)
        for (int r = 0; r < rows.num_keys; ++r, window += columns.num_keys * chunk<T>) {
            if (r < inside_rows.first || r >= inside_rows.after) continue;
            T* to = pixel<T>(image, batch, rows.first_key + r, columns.first_key + inside.first, head) + done;
            const int now = channels - done;
            for (int c = inside.first; c < inside.after; ++c, to += image.column_stride) {
                const T* from = window + c * chunk<T>;
                if (now >= chunk<T>)
                    for (int i = 0; i < chunk<T>; i += L) store(to + i, load(to + i) + load(from + i));
                else
                    for (int i = 0; i < now; ++i) to[i] += from[i];
            }
        }
}

// A tile of queries of a group: lane i holds query number `first + i` of the group, in rows of the image.
template <class T>
struct Tile {
    int first, count;  // lanes from `count` on hold no query; they work on zeros
    int vectors;
    int row[tile<T>], column[tile<T>];  // places on the query grid, of lane 0 where there is no query
    // Table entry of the first key of the window.
    int row_entry[tile<T>], column_entry[tile<T>];
    int first_row, after_row;  // the rows of the window that its queries see

    Tile(const Call& call, const Span& rows, const Span& columns, int first) : first(first) {
        count = std::min(rows.num_queries * columns.num_queries - first, tile<T>);
        vectors = (count + lanes<T> - 1) / lanes<T>;
        for (int lane = 0; lane < tile<T>; ++lane) {
            const int query = first + (lane < count ? lane : 0);
            const int i = query / columns.num_queries, j = query % columns.num_queries;
            row[lane] = rows.first_query + i;
            column[lane] = columns.first_query + j;
            row_entry[lane] = entry(call.rows, rows, i);
            column_entry[lane] = entry(call.columns, columns, j);
        }
        first_row = 0;
        after_row = rows.num_keys;
        if (call.centered) {
            const int64_t first_pixel = row[0] * call.rows.stride, last_pixel = row[count - 1] * call.rows.stride;
            first_row = std::max(first_row, int(first_pixel - call.rows.halo - rows.first_key));
            after_row = std::min(after_row, int(last_pixel + call.rows.halo + 1 - rows.first_key));
        }
    }

    static int entry(const Axis& axis, const Span& span, int slot) {
        const int64_t standing = span.first_pixel + slot * axis.offset_stride;
        return int(span.first_key - standing + axis.block + axis.halo - 1);
    }
};

// Read `channels` of the tile's queries from an image, times a factor, to [channels, lanes].
template <class T>
void read_transposed(const Image& image, int channels, int64_t batch, int64_t head, const Tile<T>& tile_, T factor,
                     T* result) {
    constexpr int L = lanes<T>;
    for (int v = 0; v < tile_.vectors; ++v)
        for (int done = 0; done < channels; done += L) {
            Vector<T> square[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) {
                const int lane = v * L + i;
                square[i] = Vector<T>{};
                if (lane >= tile_.count) continue;
                const T* from = pixel<T>(image, batch, tile_.row[lane], tile_.column[lane], head) + done;
                square[i] = channels - done >= L ? load(from) : load_some(from, channels - done);
            }
            transpose<T>(square);
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) store(result + (done + i) * tile<T> + v * L, square[i] * factor);
        }
}

// Write [channels, lanes] times a factor for each lane to the tile's queries in an image.
template <class T>
void write_transposed(const Image& image, int channels, int64_t batch, int64_t head, const Tile<T>& tile_,
                      const T* factor, const T* from) {
    constexpr int L = lanes<T>;
    for (int v = 0; v < tile_.vectors; ++v)
        for (int done = 0; done < channels; done += L) {
            Vector<T> square[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) square[i] = load(from + (done + i) * tile<T> + v * L) * load(factor + v * L);
            transpose<T>(square);
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) {
                const int lane = v * L + i;
                if (lane >= tile_.count) break;
                T* to = pixel<T>(image, batch, tile_.row[lane], tile_.column[lane], head) + done;
                if (channels - done >= L)
                    store(to, square[i]);
                else
                    std::memcpy(to, &square[i], (channels - done) * sizeof(T));
            }
        }
}

// Read `channels` of the tile's queries, times a factor, to [chunks, lanes, channels of a chunk].
template <class T>
void read_rows(const Image& image, int first_channel, int channels, int64_t batch, int64_t head, const Tile<T>& tile_,
               T factor, T* result) {
    const int used = tile_.vectors * lanes<T>;
    for (int done = 0; done < channels; done += chunk<T>, result += tile<T> * chunk<T>)
        for (int lane = 0; lane < used; ++lane) {
            const T* from =
                pixel<T>(image, batch, tile_.row[lane], tile_.column[lane], head) + first_channel + done;
            T* to = result + lane * chunk<T>;
            copy_chunk(from, lane < tile_.count ? channels - done : 0, to);
            for (int i = 0; i < chunk<T>; ++i) to[i] *= factor;
        }
}

// Copy a table to [chunks, entries, channels of a chunk].
template <class T>
void read_table(const Table& table, int entries, T* result) {
    const T* from = static_cast<const T*>(table.data);
    for (int done = 0; done < table.width; done += chunk<T>)
        for (int t = 0; t < entries; ++t, result += chunk<T>)
            copy_chunk(from + t * table.width + done, int(table.width) - done, result);
}

// Copy it back.
template <class T>
void write_table(const T* from, int entries, int64_t width, T* table) {
    for (int64_t done = 0; done < width; done += chunk<T>)
        for (int t = 0; t < entries; ++t, from += chunk<T>)
            std::copy_n(from, std::min<int64_t>(width - done, chunk<T>), table + t * width + done);
}

}  // namespace halonet::HALONET_ISA
