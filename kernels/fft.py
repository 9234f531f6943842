"""Fourier transforms of values in registers, one transform per lane, and exchanges of values between lanes.

A "variable" is a tensor [W, 32] with one value per lane of W warps. Thirty-two variables form a square of variables by
lanes, which :func:`turn` transposes. Apart from shuffles, that is the only way for a value to leave its lane.
"""

import math

import triton
import triton.language as tl


@triton.constexpr_function
def cosine(k, n):
    """Return cos(2πk/n) at compile time."""
    return math.cos(2 * math.pi * k / n)


@triton.constexpr_function
def sine(k, n):
    """Return -sin(2πk/n) at compile time."""
    return -math.sin(2 * math.pi * k / n)


@triton.jit
def butterfly(ar, ai, br, bi, K: tl.constexpr, N: tl.constexpr):
    """Compute a + wb and a - wb, w = exp(-2πi K/N), in six fused operations: the second is 2a minus the first."""
    if K == 0:
        return ar + br, ai + bi, ar - br, ai - bi
    elif 4 * K == N:
        return ar + bi, ai - br, ar - bi, ai + br
    else:
        sr = br * cosine(K, N) + (ar - bi * sine(K, N))
        si = bi * cosine(K, N) + (ai + br * sine(K, N))
        return sr, si, ar * 2.0 - sr, ai * 2.0 - si


@triton.jit
def fft(re, im, N: tl.constexpr):
    """Compute the DFT of N complex values in N variables: radix 2, decimation in time."""
    if N == 1:
        return re, im
    else:
        er, ei = fft(re[0::2], im[0::2], N // 2)
        dr, di = fft(re[1::2], im[1::2], N // 2)
        low_r, low_i, high_r, high_i = (), (), (), ()
        for k in tl.static_range(N // 2):
            lr, li, hr, hi = butterfly(er[k], ei[k], dr[k], di[k], k, N)
            low_r += (lr,)
            low_i += (li,)
            high_r += (hr,)
            high_i += (hi,)
        return low_r + high_r, low_i + high_i


@triton.jit
def real_fft(x, N: tl.constexpr, OUTER: tl.constexpr = True):
    """Compute bins 0 to N/2 of the DFT of N real values in N variables.

    The outermost call omits the last step of bin 0, whose real and imaginary part are then the sums over the even and
    over the odd values, and it omits bin N/2.
    """
    if N == 1:
        return x, (x[0] * 0.0,)
    else:
        er, ei = real_fft(x[0::2], N // 2, False)
        dr, di = real_fft(x[1::2], N // 2, False)
        if OUTER:
            low_r, low_i, high_r, high_i = (er[0],), (dr[0],), (), ()
        else:
            zero = ei[0]
            low_r, low_i, high_r, high_i = (er[0] + dr[0],), (zero,), (er[0] - dr[0],), (zero,)
        for k in tl.static_range(1, N // 4):
            lr, li, hr, hi = butterfly(er[k], ei[k], dr[k], di[k], k, N)
            low_r += (lr,)
            low_i += (li,)
            # Bin N/2 - k is the conjugate of the other sum.
            high_r = (hr,) + high_r
            high_i = (-hi,) + high_i
        if N >= 4:
            low_r += (er[N // 4],)
            low_i += (-dr[N // 4],)
        return low_r + high_r, low_i + high_i


@triton.jit
def stack(xs, N: tl.constexpr):
    """Join N variables to one tensor; their index is in the last log2(N) axes, most significant bit first."""
    if N == 1:
        return xs[0]
    else:
        return tl.join(stack(xs[0::2], N // 2), stack(xs[1::2], N // 2))


@triton.jit
def unstack(x, N: tl.constexpr):
    """Split a tensor into N variables: the inverse of :func:`stack`."""
    if N == 1:
        return (x,)
    else:
        even, odd = tl.split(x)
        evens, odds = unstack(even, N // 2), unstack(odd, N // 2)
        xs = ()
        for i in tl.static_range(N // 2):
            xs += (evens[i], odds[i])
        return xs


@triton.jit
def variables(x, N: tl.constexpr, W: tl.constexpr):
    """Split a tensor [W, N, 32] into N variables."""
    x = tl.trans(x, 0, 2, 1)
    if N == 8:
        return unstack(tl.reshape(x, (W, 32, 2, 2, 2)), 8)
    elif N == 16:
        return unstack(tl.reshape(x, (W, 32, 2, 2, 2, 2)), 16)
    elif N == 32:
        return unstack(tl.reshape(x, (W, 32, 2, 2, 2, 2, 2)), 32)
    elif N == 64:
        return unstack(tl.reshape(x, (W, 32, 2, 2, 2, 2, 2, 2)), 64)
    else:
        return unstack(tl.reshape(x, (W, 32, 2, 2, 2, 2, 2, 2, 2)), 128)


@triton.jit
def square(xs, one, W: tl.constexpr):
    """Join 32 variables to a tensor [W, lane, variable].

    `one` is 1.0, loaded from memory. A loaded value cannot be recomputed in another layout, so the compiler neither
    splits the exchange that follows into dozens nor cancels two consecutive exchanges.
    """
    return tl.reshape(stack((xs[0] * one,) + xs[1:], 32), (W, 32, 32))


@triton.jit
def turn(xs, one, W: tl.constexpr):
    """Transpose 32 variables by 32 lanes."""
    return variables(square(xs, one, W), 32, W)


@triton.jit
def from_lane(x, i_lane):
    """Return the value of another lane of the same warp."""
    return tl.gather(x, i_lane, 1)
