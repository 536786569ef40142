// Arithmetic that notices an overflow, and the check that every call passes before a kernel sees it. Beyond it the
// kernels compute with plain 64-bit integers: nothing they count is larger than what was counted here.
#pragma once

#include <cstdint>

#include "call.h"

namespace halonet {

// What the entry points return; mirrored in src/halonet/ops/cpu_library.py.
enum class Status : int {
    done,
    no_memory,
    bad_call,   // a number is out of its range or contradicts another, or a pointer is missing
    too_large,  // something cannot be counted in 64 bits, or is larger than what a process can address
};

// A count of something. Once it is negative or overflows it does not fit, nor does what is computed from it.
class Count {
  public:
    Count(int64_t value) : value_(value), fits_(value >= 0) {}

    bool fits() const { return fits_; }
    int64_t value() const { return value_; }

    friend Count operator+(Count a, Count b) {
        Count sum(0);
        sum.fits_ = !__builtin_add_overflow(a.value_, b.value_, &sum.value_) && a.fits_ && b.fits_;
        return sum;
    }
    friend Count operator*(Count a, Count b) {
        Count product(0);
        product.fits_ = !__builtin_mul_overflow(a.value_, b.value_, &product.value_) && a.fits_ && b.fits_;
        return product;
    }
    Count rounded_up_to(int64_t multiple) const {
        const Count more = *this + (multiple - 1);
        return more.fits_ ? Count(more.value_ / multiple * multiple) : more;
    }

  private:
    int64_t value_;
    bool fits_;
};

Status check(const Call& call, bool backward);
Status check(const NormCall& call, bool backward);

}  // namespace halonet
