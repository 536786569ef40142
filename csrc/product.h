// The one matrix product of this library: a register tile of a[m, k] * b[k, n], n along the lanes of vectors.
#pragma once

#include "vector.h"

namespace halonet::HALONET_ISA {

// A tile is the queries that are in work at a time, one in each lane of so many vectors.
constexpr int tile_vectors = vector_bytes == 16 && num_registers == 32 ? 4 : 2;
template <class T>
constexpr int tile_lanes = tile_vectors * lanes<T>;

// Windows, tables and queries are kept as [chunks of channels, pixels, channels of a chunk]: distances between
// pixels are then constants of the program.
template <class T>
constexpr int chunk = 64 / int(sizeof(T));

// Distances between the elements of both factors and of the result.
template <class T>
struct ByChannel {  // result[pixel, query] = sum over channels of pixels[pixel, channel] * queries[channel, query]
    static constexpr int a_row = chunk<T>, a_column = 1, b_row = tile_lanes<T>, c_row = tile_lanes<T>;
};
template <class T>
struct ByPixel {  // result[channel, query] = sum over pixels of pixels[pixel, channel] * scores[pixel, query]
    static constexpr int a_row = 1, a_column = chunk<T>, b_row = tile_lanes<T>, c_row = tile_lanes<T>;
};
template <class T>
struct ByQuery {  // result[pixel, channel] = sum over queries of scores[pixel, query] * queries[query, channel]
    static constexpr int a_row = tile_lanes<T>, a_column = 1, b_row = chunk<T>, c_row = chunk<T>;
};

// What a product starts from.
enum class Start { zero, result, positions };

template <class T>
struct Operands {
    const T *a, *b;
    T* c;
    int64_t length;
    const T *row_logits, *column_logits;  // Start::positions: one vector for all m, one for each m
};

template <class T, class Layout, Start start, int vectors, int rows>
[[gnu::noinline]] void product_tile(const Operands<T>& given) {
    constexpr int L = lanes<T>;
    const T *a = given.a, *b = given.b;
    T* c = given.c;
    Vector<T> sum[rows][vectors];
#pragma GCC unroll 16
    for (int m = 0; m < rows; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            if constexpr (start == Start::zero) sum[m][v] = Vector<T>{};
            if constexpr (start == Start::result) sum[m][v] = load(c + m * Layout::c_row + v * L);
            if constexpr (start == Start::positions)
                sum[m][v] = load(given.row_logits + v * L) + load(given.column_logits + m * tile_lanes<T> + v * L);
        }
    for (int64_t k = given.length; k > 0; --k) {
        Vector<T> right[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) right[v] = load(b + v * L);
#pragma GCC unroll 16
        for (int m = 0; m < rows; ++m) {
            const Vector<T> left = all<T>(a[m * Layout::a_row]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) sum[m][v] += left * right[v];
        }
        a += Layout::a_column;
        b += Layout::b_row;
    }
#pragma GCC unroll 16
    for (int m = 0; m < rows; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) store(c + m * Layout::c_row + v * L, sum[m][v]);
}

template <class T, class Layout, Start start, int vectors>
struct Product {
    // All sums, the right factor and one broadcast stay in registers.
    static constexpr int most = (num_registers - 1 - vectors) / vectors;
    static constexpr int max_rows = most > 14 ? 14 : most;
    using Tile = void (*)(const Operands<T>&);

    template <class Rows>
    struct Tiles;
    template <int... I>
    struct Tiles<std::integer_sequence<int, I...>> {
        static constexpr Tile of_rows[] = {nullptr, product_tile<T, Layout, start, vectors, I + 1>...};
    };

    static void run(int64_t rows, Operands<T> given) {
        constexpr auto& tiles = Tiles<std::make_integer_sequence<int, max_rows>>::of_rows;
        if (rows <= max_rows) return rows > 0 ? tiles[rows](given) : void();
        const int64_t parts = (rows + max_rows - 1) / max_rows, least = rows / parts, with_one_more = rows % parts;
        for (int64_t part = 0; part < parts; ++part) {
            const int64_t now = least + (part < with_one_more);
            tiles[now](given);
            given.a += now * Layout::a_row;
            given.c += now * Layout::c_row;
            if constexpr (start == Start::positions) given.column_logits += now * tile_lanes<T>;
        }
    }
};

// result (+)= a * b, `rows` x `vectors` vectors, over `length` common elements.
template <template <class> class Layout, Start start, class T>
inline void product(int64_t rows, int vectors, int64_t length, const T* a, const T* b, T* c,
                    const T* row_logits = nullptr, const T* column_logits = nullptr) {
    const Operands<T> given{a, b, c, length, row_logits, column_logits};
    if (vectors == 1) return Product<T, Layout<T>, start, 1>::run(rows, given);
    if (vectors == 2) return Product<T, Layout<T>, start, 2>::run(rows, given);
    if constexpr (tile_vectors > 2 || chunk<float> / lanes<float> > 2) {
        if (vectors == 3) return Product<T, Layout<T>, start, 3>::run(rows, given);
        return Product<T, Layout<T>, start, 4>::run(rows, given);
    }
}

}  // namespace halonet::HALONET_ISA
