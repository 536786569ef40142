// Batch norm, the sum with a residual and the activation together: one pass over memory, or two in training, where the
// first is for the statistics, and two in the backward. Pixels are rows of contiguous channels, as channels_last maps
// have them; the channels are a multiple of a vector.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernel.h"
#include "vector.h"

namespace halonet::HALONET_ISA {

// Pixels that a task works on: their number depends on the sizes alone, and with it the order of every sum.
inline int64_t pixels_per_task(const NormCall& call) { return std::max<int64_t>(32, 8192 / call.channels); }

inline int64_t count_tasks(const NormCall& call) {
    return (call.pixels + pixels_per_task(call) - 1) / pixels_per_task(call);
}

// The pixels of one task, and how many elements lie before them.
struct Piece {
    int64_t pixels, offset;

    Piece(const NormCall& call, int64_t task) {
        const int64_t first = task * pixels_per_task(call);
        pixels = std::min(pixels_per_task(call), call.pixels - first);
        offset = first * call.channels;
    }
};

// Two numbers for each channel of each task, then the factors of all channels.
template <class T>
Count norm_memory_size(const NormCall& call) {
    return (Count(2) * count_tasks(call) + 5) * call.channels * sizeof(T);
}

// 1 / (1 + e^-x)
template <class T>
inline Vector<T> sigmoid(Vector<T> x) {
    const Vector<T> exponent = x * T(-1.4426950408889634074);
    const Vector<T> most = all<T>(Simd<T>::bias - 1);  // where the sigmoid is all but zero
    return T(1) / (T(1) + exp2<T>(exponent < most ? exponent : most));
}

template <class T, Activation activation>
inline Vector<T> activate(Vector<T> x) {
    if constexpr (activation == Activation::silu) return x * sigmoid<T>(x);
    if constexpr (activation == Activation::relu) return x < T(0) ? Vector<T>{} : x;
    return x;
}

template <class T, Activation activation>
inline Vector<T> activation_gradient(Vector<T> x) {
    if constexpr (activation == Activation::silu) {
        const Vector<T> s = sigmoid<T>(x);
        return s + x * s * (T(1) - s);
    }
    if constexpr (activation == Activation::relu) return x > T(0) ? all<T>(1) : Vector<T>{};
    return all<T>(1);
}

// Mean of each channel and sum of squares around it, over the pixels of a task.
template <class T>
void sum_piece(const NormCall& call, const Piece& piece, T* means, T* squares) {
    constexpr int L = lanes<T>;
    const int64_t channels = call.channels;
    const T* input = static_cast<const T*>(call.input) + piece.offset;
    const auto sum = [&](const auto& term, T* result) {
        std::fill_n(result, channels, T(0));
        int64_t pixel = 0;
        for (; pixel + 4 <= piece.pixels; pixel += 4)
            for (int64_t c = 0; c < channels; c += L) {
                const T* from = input + pixel * channels + c;
                store(result + c, load(result + c) + ((term(from, c) + term(from + channels, c)) +
                                                      (term(from + 2 * channels, c) + term(from + 3 * channels, c))));
            }
        for (; pixel < piece.pixels; ++pixel)
            for (int64_t c = 0; c < channels; c += L)
                store(result + c, load(result + c) + term(input + pixel * channels + c, c));
    };
    sum([](const T* from, int64_t) { return load(from); }, means);
    for (int64_t c = 0; c < channels; c += L) store(means + c, load(means + c) * (T(1) / T(piece.pixels)));
    sum(
        [means](const T* from, int64_t c) {
            const Vector<T> difference = load(from) - load(means + c);
            return difference * difference;
        },
        squares);
}

// Mean and variance of the batch, from those of the tasks in their order.
template <class T>
void batch_statistics(const NormCall& call, T* parts, const Threads& threads) {
    const int64_t channels = call.channels, tasks = count_tasks(call);
    threads.share(call.threads, tasks, [&](int64_t task) {
        sum_piece(call, Piece(call, task), parts + 2 * task * channels, parts + (2 * task + 1) * channels);
    });
    for (int64_t c = 0; c < channels; ++c) {
        double count = 0, mean = 0, squares = 0;
        for (int64_t task = 0; task < tasks; ++task) {
            const double now = double(Piece(call, task).pixels);
            const double step = parts[2 * task * channels + c] - mean;
            mean += step * now / (count + now);
            squares += parts[(2 * task + 1) * channels + c] + step * step * count * now / (count + now);
            count += now;
        }
        static_cast<T*>(call.mean)[c] = T(mean);
        static_cast<T*>(call.variance)[c] = T(squares / count);
        if (!call.running_mean) continue;
        const auto move = [&](void* running, double to) {
            T& now = static_cast<T*>(running)[c];
            now = T(now + call.momentum * (to - now));
        };
        move(call.running_mean, mean);
        move(call.running_variance, squares / (count - 1));
    }
}

// One channel of a norm; what is not given is that of the identity.
template <class T>
struct Channel {
    double mean, variance, weight, bias;

    Channel(const NormCall& call, int64_t c)
        : mean(of(call.mean, c, 0)),
          variance(call.variance ? of(call.variance, c, 0) + call.epsilon : 1),
          weight(of(call.weight, c, 1)),
          bias(of(call.bias, c, 0)) {}

    static double of(const void* numbers, int64_t c, double otherwise) {
        return numbers ? double(static_cast<const T*>(numbers)[c]) : otherwise;
    }
};

// The norm as a factor, a constant and a mean for each channel.
template <class T>
struct Line {
    const T *factor, *constant, *mean;

    Line(const NormCall& call, T* memory)
        : factor(memory), constant(memory + call.channels), mean(memory + 2 * call.channels) {
        for (int64_t c = 0; c < call.channels; ++c) {
            const Channel<T> channel(call, c);
            const double slope = channel.weight / std::sqrt(channel.variance);
            memory[c] = T(slope);
            memory[call.channels + c] = T(channel.bias - channel.mean * slope);
            memory[2 * call.channels + c] = T(channel.mean);
        }
    }
};

template <class T, Activation activation, bool residual>
void norm_piece(const NormCall& call, const Piece& piece, const Line<T>& line) {
    const T* input = static_cast<const T*>(call.input) + piece.offset;
    T* output = static_cast<T*>(call.output) + piece.offset;
    for (int64_t pixel = 0; pixel < piece.pixels; ++pixel)
        for (int64_t c = 0; c < call.channels; c += lanes<T>) {
            const int64_t i = pixel * call.channels + c;
            Vector<T> x = load(input + i) * load(line.factor + c) + load(line.constant + c);
            if constexpr (residual) x += load(static_cast<const T*>(call.residual) + piece.offset + i);
            store(output + i, activate<T, activation>(x));
        }
}

// Gradient before the activation, and its sums: alone, and times the input's distance from its mean.
template <class T, Activation activation, bool residual>
void gradient_piece(const NormCall& call, const Piece& piece, const Line<T>& line, T* sums, T* products) {
    const T* input = static_cast<const T*>(call.input) + piece.offset;
    const T* grad_output = static_cast<const T*>(call.grad_output) + piece.offset;
    T* gradient = static_cast<T*>(residual ? call.grad_residual : call.grad_input) + piece.offset;
    std::fill_n(sums, call.channels, T(0));
    std::fill_n(products, call.channels, T(0));
    for (int64_t pixel = 0; pixel < piece.pixels; ++pixel)
        for (int64_t c = 0; c < call.channels; c += lanes<T>) {
            const int64_t i = pixel * call.channels + c;
            const Vector<T> value = load(input + i);
            Vector<T> x = value * load(line.factor + c) + load(line.constant + c);
            if constexpr (residual) x += load(static_cast<const T*>(call.residual) + piece.offset + i);
            const Vector<T> now = load(grad_output + i) * activation_gradient<T, activation>(x);
            store(gradient + i, now);
            store(sums + c, load(sums + c) + now);
            store(products + c, load(products + c) + now * (value - load(line.mean + c)));
        }
}

// Run a pass with the activation, and whether there is a residual, as constants of the program.
template <class Pass>
void with_constants(const NormCall& call, const Pass& pass) {
    const auto run = [&](auto activation) {
        call.residual ? pass(activation, std::true_type()) : pass(activation, std::false_type());
    };
    switch (call.activation) {
        case Activation::silu: return run(std::integral_constant<Activation, Activation::silu>());
        case Activation::relu: return run(std::integral_constant<Activation, Activation::relu>());
        case Activation::none: return run(std::integral_constant<Activation, Activation::none>());
    }
}

template <class T>
void norm_forward(const NormCall& call, void* memory, const Threads& threads) {
    T* parts = static_cast<T*>(memory);
    if (call.training) batch_statistics(call, parts, threads);
    const Line<T> line(call, parts);
    with_constants(call, [&](auto activation, auto residual) {
        threads.share(call.threads, count_tasks(call), [&](int64_t task) {
            norm_piece<T, decltype(activation)::value, decltype(residual)::value>(call, Piece(call, task), line);
        });
    });
}

template <class T>
void norm_backward(const NormCall& call, void* memory, const Threads& threads) {
    constexpr int L = lanes<T>;
    const int64_t channels = call.channels, tasks = count_tasks(call);
    T* parts = static_cast<T*>(memory);
    T* factors = parts + 2 * tasks * channels;
    const Line<T> line(call, factors);
    with_constants(call, [&](auto activation, auto residual) {
        threads.share(call.threads, tasks, [&](int64_t task) {
            gradient_piece<T, decltype(activation)::value, decltype(residual)::value>(
                call, Piece(call, task), line, parts + 2 * task * channels, parts + (2 * task + 1) * channels);
        });
    });
    // grad_input = gradient * factor + input * slope + level
    T *slope = factors + 3 * channels, *level = factors + 4 * channels;
    for (int64_t c = 0; c < channels; ++c) {
        double sum = 0, product = 0;
        for (int64_t task = 0; task < tasks; ++task) {
            sum += parts[2 * task * channels + c];
            product += parts[(2 * task + 1) * channels + c];
        }
        const Channel<T> channel(call, c);
        static_cast<T*>(call.grad_weight)[c] = T(product / std::sqrt(channel.variance));
        static_cast<T*>(call.grad_bias)[c] = T(sum);
        const double share = call.training ? double(line.factor[c]) / double(call.pixels) : 0;
        slope[c] = T(-share * product / channel.variance);
        level[c] = T(share * (product / channel.variance * channel.mean - sum));
    }
    threads.share(call.threads, tasks, [&](int64_t task) {
        const Piece piece(call, task);
        const T* input = static_cast<const T*>(call.input) + piece.offset;
        const T* gradient = static_cast<const T*>(call.residual ? call.grad_residual : call.grad_input) + piece.offset;
        T* result = static_cast<T*>(call.grad_input) + piece.offset;
        for (int64_t pixel = 0; pixel < piece.pixels; ++pixel)
            for (int64_t c = 0; c < channels; c += L) {
                const int64_t i = pixel * channels + c;
                store(result + i, load(gradient + i) * load(line.factor + c) + load(input + i) * load(slope + c) +
                                      load(level + c));
            }
    });
}

}  // namespace halonet::HALONET_ISA
