// Vectors of the widest registers of the instruction set that this translation unit is compiled for.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace halonet::HALONET_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, num_registers = 32;
#elif defined(__AVX__)
constexpr int vector_bytes = 32, num_registers = 16;
#elif defined(__aarch64__)
constexpr int vector_bytes = 16, num_registers = 32;
#else
constexpr int vector_bytes = 16, num_registers = 16;
#endif

template <class T>
struct Simd;

template <>
struct Simd<float> {
    using Int = int32_t;
    typedef float Vector __attribute__((vector_size(vector_bytes)));
    typedef int32_t Mask __attribute__((vector_size(vector_bytes)));
    static constexpr int mantissa = 23, bias = 127;
    // 2^r - 1 = r * polynomial(r) on [-0.5, 0.5], relative error of 2^r below 1e-7.
    static constexpr float exp2[] = {0.6931469775914988f, 0.24022242080358466f, 0.055507337542431284f,
                                     0.009671512869776825f, 0.0013264723894185753f};
};

template <>
struct Simd<double> {
    using Int = int64_t;
    typedef double Vector __attribute__((vector_size(vector_bytes)));
    typedef int64_t Mask __attribute__((vector_size(vector_bytes)));
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr double exp2[] = {
        0.6931471805599453,    0.2402265069591013,     0.05550410866482007,   0.009618129107594006,
        0.0013333558146777003, 0.0001540353045723603,  1.5252733491305699e-05, 1.3215435227840362e-06,
        1.0178200209904463e-07, 7.073791650351687e-09, 4.4346871172461115e-10};
};

template <class T>
using Vector = typename Simd<T>::Vector;
template <class T>
using Mask = typename Simd<T>::Mask;
template <class T>
constexpr int lanes = vector_bytes / sizeof(T);

template <class T>
inline Vector<T> load(const T* from) {
    Vector<T> result;
    std::memcpy(&result, from, sizeof result);
    return result;
}

// Only the first `count` elements are read; the other lanes are zero.
template <class T>
[[gnu::noinline]] Vector<T> load_some(const T* from, int64_t count) {
    Vector<T> result = {};
    std::memcpy(&result, from, count * sizeof(T));
    return result;
}

template <class T>
inline void store(T* to, Vector<T> from) {
    std::memcpy(to, &from, sizeof from);
}

template <class T>
inline bool is_zero(Vector<T> x) {
    for (int i = 0; i < lanes<T>; ++i)
        if (!(x[i] == T(0))) return false;
    return true;
}

template <class T>
inline Vector<T> all(T value) {
    return value - Vector<T>{};
}

template <class T>
inline Vector<T> larger(Vector<T> a, Vector<T> b) {
    return a > b ? a : b;
}

// 2^x for x up to about 0; 0 below the smallest normal number, NaN for NaN.
template <class T>
inline Vector<T> exp2(Vector<T> x) {
    using S = Simd<T>;
    constexpr int degree = sizeof(S::exp2) / sizeof(T);
#if defined(__AVX512F__)
    Vector<T> whole;
    if constexpr (sizeof(T) == 4)
        whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    else
        whole = _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    // Adding 1.5 * 2^mantissa leaves the nearest integer in the last bits.
    const Vector<T> magic = all<T>(T(3) * (int64_t(1) << (S::mantissa - 1)));
    const Vector<T> shifted = x + magic;
    const Vector<T> whole = shifted - magic;
#endif
    const Vector<T> rest = x - whole;
    Vector<T> power = all<T>(S::exp2[degree - 1]);
    for (int i = degree - 2; i >= 0; --i) power = power * rest + all<T>(S::exp2[i]);
    power = power * rest + all<T>(T(1));
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const __mmask16 normal = _mm512_cmp_ps_mask(x, all<T>(1 - S::bias), _CMP_NLT_UQ);
        return _mm512_maskz_scalef_ps(normal, power, whole);
    } else {
        const __mmask8 normal = _mm512_cmp_pd_mask(x, all<T>(1 - S::bias), _CMP_NLT_UQ);
        return _mm512_maskz_scalef_pd(normal, power, whole);
    }
#else
    Mask<T> bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << S::mantissa) + (typename S::Int(S::bias) << S::mantissa);
    Vector<T> scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return x < all<T>(1 - S::bias) ? Vector<T>{} : power * scale;
#endif
}

// log2(x) for positive normal x, NaN for NaN.
template <class T>
inline Vector<T> log2(Vector<T> x) {
    using S = Simd<T>;
    Mask<T> bits;
    std::memcpy(&bits, &x, sizeof bits);
    // The bits of a float, read as an integer, are its logarithm but for 0.09.
    Vector<T> result = __builtin_convertvector(bits, Vector<T>) * (T(1) / (int64_t(1) << S::mantissa)) - T(S::bias);
    for (int i = 0; i < (sizeof(T) == 4 ? 1 : 2); ++i) {
        const Vector<T> u = x * exp2<T>(-result) - T(1);
        result += T(1.4426950408889634) * u *
                  (T(1) + u * (T(-1. / 2) + u * (T(1. / 3) + u * (T(-1. / 4) + u * (T(1. / 5) + u * T(-1. / 6))))));
    }
    return x == x ? result : x;
}

template <class T, int... I>
inline Vector<T> shuffle(Vector<T> a, Vector<T> b, std::integer_sequence<int, I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, I...);
#else
    return __builtin_shuffle(a, b, Mask<T>{I...});
#endif
}

template <class T, int step, int... I>
inline void exchange(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, I...>) {
    constexpr int n = sizeof...(I);
    const Vector<T> first = shuffle<T>(a, b, std::integer_sequence<int, ((I & step) ? n + I - step : I)...>());
    b = shuffle<T>(a, b, std::integer_sequence<int, ((I & step) ? n + I : I + step)...>());
    a = first;
}

// Transpose a square of as many vectors as a vector has lanes.
template <class T, int step = lanes<T> / 2>
inline void transpose(Vector<T> (&rows)[lanes<T>]) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i)
        if (!(i & step))
            exchange<T, step>(rows[i], rows[i + step], std::make_integer_sequence<int, lanes<T>>());
    if constexpr (step > 1) transpose<T, step / 2>(rows);
}

}  // namespace halonet::HALONET_ISA
