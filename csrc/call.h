// What Python hands over: plain numbers and pointers, mirrored field by field in src/halonet/ops/cpu_library.py.
#pragma once

#include <cstdint>

namespace halonet {

// One image axis; the counts of Python's geometry.Axis that are needed here.
struct Axis {
    int64_t size, block, halo, stride, offset_stride, num_queries, num_blocks;

    int64_t table_length() const { return 2 * (block + halo) - 1; }
};

// A tensor [batch, rows, columns, heads, channels] whose channels are contiguous. Strides count elements.
struct Image {
    void* data;
    int64_t batch_stride, row_stride, column_stride, head_stride;
};

// A contiguous table [2 * (block + halo) - 1, width]; of two tables, one may have no width.
struct Table {
    void* data;
    int64_t width;
};

struct Call {
    Axis rows, columns;
    int64_t batch, heads, query_channels, value_channels;
    int64_t zeros;     // keys outside the image are zeros that take weight; otherwise they do not exist
    int64_t centered;  // each query keeps the keys within the halo of itself
    int64_t threads;
    double scale;
    Image query, key, value, output;
    Table row_table, column_table;
    void* log_sum;  // [batch, query rows, query columns, heads], logarithms to base 2; may be null in the forward

    // The backward only. The gradients of key and value must be zero on entry.
    Image grad_output, grad_query, grad_key, grad_value;
    void *grad_row_table, *grad_column_table;

    bool has_positions() const { return row_table.width + column_table.width > 0; }
};

enum class Activation : int64_t { none, silu, relu };

// Batch norm with what follows it, over [pixels, channels].
struct NormCall {
    int64_t pixels, channels;
    Activation activation;
    int64_t training;  // statistics are those of the batch: the forward writes them, and the backward goes through them
    int64_t threads;
    double epsilon, momentum;
    const void *input, *residual;  // what is added before the activation; may be null
    const void *weight, *bias;     // may be null: 1 and 0
    void *mean, *variance, *output;
    void *running_mean, *running_variance;  // the forward in training moves them toward the batch's; may be null

    // The backward only; without a residual there is no grad_residual.
    const void* grad_output;
    void *grad_input, *grad_residual, *grad_weight, *grad_bias;
};

}  // namespace halonet
