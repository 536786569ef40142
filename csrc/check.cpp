// What must hold of a call before a kernel reads or writes anything.
#include "check.h"

#include <initializer_list>

namespace halonet {

namespace {

// Sums of a few numbers below this fit into 64 bits.
constexpr int64_t most_pixels = int64_t(1) << 48;
constexpr int64_t most_bytes = int64_t(1) << 47;  // that a process can address
constexpr int64_t most_threads = 1 << 16;
constexpr int64_t most_lanes = 16;

bool is_within(int64_t number, int64_t least, int64_t most) { return number >= least && number <= most; }

bool is_flag(int64_t number) { return is_within(number, 0, 1); }

int64_t ceil_divide(int64_t a, int64_t b) { return (a - 1) / b + 1; }

bool is_sound(const Axis& axis) {
    for (int64_t each : {axis.size, axis.block, axis.stride, axis.offset_stride})
        if (!is_within(each, 1, most_pixels)) return false;
    if (!is_within(axis.halo, 0, most_pixels)) return false;
    if (axis.offset_stride != axis.stride) {  // then the table must still hold the offsets of a block's last query
        if (axis.block % axis.stride != 0) return false;
        const Count last = Count(axis.block / axis.stride - 1) * axis.offset_stride;
        if (!last.fits() || last.value() >= axis.block) return false;
    }
    return axis.num_queries == ceil_divide(axis.size, axis.stride) &&
           axis.num_blocks == ceil_divide(axis.size, axis.block);
}

// A table without channels has no memory.
bool is_sound(const Table& table, const void* gradient, int64_t query_channels, bool backward) {
    return table.width == 0 ||
           (is_within(table.width, 1, query_channels) && table.data && (gradient || !backward));
}

bool are_addressable(Count numbers) {
    const Count bytes = numbers * sizeof(float);
    return bytes.fits() && bytes.value() <= most_bytes;
}

// Whether every element has an address.
Status check(const Image& image, int64_t batch, int64_t rows, int64_t columns, int64_t heads, int64_t channels) {
    for (int64_t stride : {image.batch_stride, image.row_stride, image.column_stride, image.head_stride})
        if (stride < 0) return Status::bad_call;
    if (!image.data) return Status::bad_call;
    const Count last = Count(batch - 1) * image.batch_stride + Count(rows - 1) * image.row_stride +
                       Count(columns - 1) * image.column_stride + Count(heads - 1) * image.head_stride + channels;
    return are_addressable(last) ? Status::done : Status::too_large;
}

}  // namespace

Status check(const Call& call, bool backward) {
    if (!is_sound(call.rows) || !is_sound(call.columns)) return Status::bad_call;
    for (int64_t each : {call.batch, call.heads, call.query_channels, call.value_channels})
        if (!is_within(each, 1, most_pixels)) return Status::bad_call;
    if (!is_flag(call.zeros) || !is_flag(call.centered) || !is_within(call.threads, 1, most_threads))
        return Status::bad_call;
    if (!is_sound(call.row_table, call.grad_row_table, call.query_channels, backward) ||
        !is_sound(call.column_table, call.grad_column_table, call.query_channels, backward))
        return Status::bad_call;
    if (backward && !call.log_sum) return Status::bad_call;

    const auto check_image = [&](const Image& image, bool of_queries, int64_t channels) {
        const int64_t rows = of_queries ? call.rows.num_queries : call.rows.size;
        const int64_t columns = of_queries ? call.columns.num_queries : call.columns.size;
        return check(image, call.batch, rows, columns, call.heads, channels);
    };
    Status status = Status::done;
    const auto need = [&](Status found) { status = status == Status::done ? found : status; };
    need(check_image(call.query, true, call.query_channels));
    need(check_image(call.key, false, call.query_channels));
    need(check_image(call.value, false, call.value_channels));
    need(check_image(call.output, true, call.value_channels));
    if (backward) {
        need(check_image(call.grad_output, true, call.value_channels));
        need(check_image(call.grad_query, true, call.query_channels));
        need(check_image(call.grad_key, false, call.query_channels));
        need(check_image(call.grad_value, false, call.value_channels));
    }
    // The numbers of log_sum, and the tasks: no axis has more groups than queries.
    if (!are_addressable(Count(call.rows.num_queries) * call.columns.num_queries * call.batch * call.heads))
        need(Status::too_large);
    return status;
}

Status check(const NormCall& call, bool backward) {
    const int64_t activation = int64_t(call.activation);
    if (call.pixels < 1 || call.channels < 1 || call.channels % most_lanes) return Status::bad_call;
    if (!is_within(activation, 0, int64_t(Activation::relu)) || !is_flag(call.training)) return Status::bad_call;
    if (!is_within(call.threads, 1, most_threads) || !call.input) return Status::bad_call;
    if (call.training && (!call.mean || !call.variance)) return Status::bad_call;
    if (!call.running_mean != !call.running_variance) return Status::bad_call;
    if (!backward && !call.output) return Status::bad_call;
    if (backward && (!call.grad_output || !call.grad_input || !call.grad_weight || !call.grad_bias))
        return Status::bad_call;
    if (backward && call.residual && !call.grad_residual) return Status::bad_call;
    return are_addressable(Count(call.pixels) * call.channels) ? Status::done : Status::too_large;
}

}  // namespace halonet
