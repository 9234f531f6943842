"""The kernel that computes both mel channels of a batch of waveforms, its parts, and its launcher; see README.md."""

import threading

import torch
import triton
import triton.language as tl
from triton.compiler import ASTSource

from .fft import fft, from_lane, real_fft, square, turn, unstack, variables
from .plan import Plan


@triton.jit
def load_frames(x_p, t, S, T, HOP: tl.constexpr, N_FFT: tl.constexpr, W: tl.constexpr, REFLECT: tl.constexpr):
    """Load the frames of each warp one after the other, [W, 64 or more, 32]: sample 32·j + lane in variable j."""
    N_VARS: tl.constexpr = N_FFT // 32
    ALL: tl.constexpr = max(64, N_VARS)
    o_var = tl.arange(0, ALL)[None, :, None]
    o_warp = tl.arange(0, W)[:, None, None]
    o_start = tl.minimum(t + (ALL // N_VARS) * o_warp + o_var // N_VARS, T - 1) * HOP
    o_sample = 32 * (o_var % N_VARS) - N_FFT // 2 + tl.arange(0, 32)[None, None, :]
    if REFLECT:
        o_x = tl.abs(o_start + o_sample)
        # Reflected samples are not contiguous, nor are frames. The hints only decide the layout, in which each warp has
        # a frame and each lane loads single words.
        o_x = tl.max_contiguous(o_x - 2 * tl.maximum(o_x - (S - 1), 0), (2, 1, 32))
    else:
        # In 64 bits, so that one address serves all loads, at constant offsets.
        o_x = tl.max_contiguous(o_start.to(tl.int64) + o_sample, (2, 1, 32))
    return tl.load(x_p + o_x).to(tl.float32)


@triton.jit
def columns(x, twiddles_r, twiddles_i, o_lane, N_COLUMNS: tl.constexpr):
    """Compute the first half of a frame's FFT: columns, each ready for a transform of length 32 over the lanes.

    Column 0 holds two real columns, 0 and N_COLUMNS, as the 64 sums u[r] over samples r, r + 64, r + 128, ...: lane n
    has u[2n] + i·u[2n + 1].
    """
    re, im = real_fft(x, 2 * N_COLUMNS)
    o_even = (2 * o_lane) % 32
    is_low = o_lane < 16
    out_r = (tl.where(is_low, from_lane(re[0], o_even), from_lane(im[0], o_even)),)
    out_i = (tl.where(is_low, from_lane(re[0], o_even + 1), from_lane(im[0], o_even + 1)),)
    for k in tl.static_range(1, N_COLUMNS):
        out_r += (re[k] * twiddles_r[k] - im[k] * twiddles_i[k],)
        out_i += (im[k] * twiddles_r[k] + re[k] * twiddles_i[k],)
    return out_r, out_i


@triton.jit
def rows(re, im, one, SQUARES: tl.constexpr, W: tl.constexpr):
    """Compute the second half of the FFTs, 32 columns at a time: transposed, transformed within lanes, transposed."""
    out_r, out_i = (), ()
    for s in tl.static_range(SQUARES):
        turned_r = turn(re[32 * s : 32 * s + 32], one, W)
        turned_i = turn(im[32 * s : 32 * s + 32], one, W)
        turned_r, turned_i = fft(turned_r, turned_i, 32)
        out_r += turn(turned_r, one, W)
        out_i += turn(turned_i, one, W)
    return out_r, out_i


@triton.jit
def flat(xs, one, SQUARES: tl.constexpr, W: tl.constexpr):
    """Join the bins of all frames to one tensor [W·1024·SQUARES], ordered so that adjacent bins are in other banks."""
    x = tl.reshape(tl.trans(square(turn(xs[:32], one, W), one, W), 0, 2, 1), (W, 1024))
    if SQUARES == 2:
        other = tl.reshape(tl.trans(square(turn(xs[32:], one, W), one, W), 0, 2, 1), (W, 1024))
        x = tl.trans(tl.join(x, other), 0, 2, 1)
    return tl.reshape(x, (W * 1024 * SQUARES,))


@triton.jit
def split_column_0(zr, zi, c, s, o_lane):
    """Return R at κ = N·lane/32 and at κ = N·lane/32 + N/64 from column 0: split as a real FFT of 64, then mirrored."""
    o_mirror = (32 - o_lane) % 32
    mr, mi = from_lane(zr, o_mirror), from_lane(zi, o_mirror)
    c, s = 0.5 * c, 0.5 * s
    dr, di = zr - mr, zi + mi
    ur = 0.5 * (zr + mr) + (dr * s + di * c)
    ui = 0.5 * (zi - mi) + (di * s - dr * c)
    is_low = o_lane < 16
    sign = tl.where(is_low, 1.0, -1.0)
    o_even = tl.where(is_low, 2 * o_lane, 64 - 2 * o_lane) % 32
    o_odd = tl.where(is_low, 2 * o_lane + 1, 63 - 2 * o_lane)
    nyquist = from_lane(zr - zi, o_lane * 0)
    even_r = tl.where(o_lane == 16, nyquist, from_lane(ur, o_even))
    even_i = tl.where(o_lane == 16, 0.0, from_lane(ui, o_even) * sign)
    return even_r, even_i, from_lane(ur, o_odd), from_lane(ui, o_odd) * sign


@triton.jit
def power_and_shift(lr, li, r, i, hr, hi):
    """Compute 16·|X|² and 16·C of a bin from R of the bin below, of the bin, and of the bin above."""
    xr, xi = 2.0 * r - (lr + hr), 2.0 * i - (li + hi)
    return xr * xr + xi * xi, (lr - hr) * xr + (li - hi) * xi


@triton.jit
def stencil(re, im, c, s, o_lane, N_COLUMNS: tl.constexpr):
    """Compute 16·|X|² and 16·C of a frame. Variable k of lane q is κ = N·q/32 + k, which above N/2 is bin N - κ.

    Variable 0 is κ = N·q/32 in the lower 16 lanes and κ = N·q/32 + N/64 in the upper ones. Together these are all bins,
    each once.
    """
    is_low = o_lane < 16
    below_r, below_i, above_r, above_i = split_column_0(re[0], im[0], c, s, o_lane)
    LAST: tl.constexpr = N_COLUMNS - 1
    near_r, near_i = tl.where(is_low, re[1], re[LAST]), tl.where(is_low, im[1], im[LAST])
    # The other neighbour of variable 0 is stored as its conjugate only, in another lane.
    o_one, o_last = (32 - o_lane) % 32, 31 - o_lane
    far_r = tl.where(is_low, from_lane(re[1], o_one), from_lane(re[LAST], o_last))
    far_i = -tl.where(is_low, from_lane(im[1], o_one), from_lane(im[LAST], o_last))
    r, i = tl.where(is_low, below_r, above_r), tl.where(is_low, below_i, above_i)
    p, c = power_and_shift(far_r, far_i, r, i, near_r, near_i)
    power, shift = (p,), (c,)
    sign = tl.where(is_low, 1.0, -1.0)  # C of a conjugate is -C
    res, ims = (below_r,) + re[1:] + (above_r,), (below_i,) + im[1:] + (above_i,)
    for k in tl.static_range(1, N_COLUMNS):
        p, c = power_and_shift(res[k - 1], ims[k - 1], res[k], ims[k], res[k + 1], ims[k + 1])
        power += (p,)
        shift += (c * sign,)
    return power, shift


@triton.jit
def steps(x, ROWS: tl.constexpr, GROUPS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    """Split [ROWS, GROUPS·DEPTH·WIDTH] into the DEPTH steps of each block, [ROWS, GROUPS, WIDTH]."""
    x = tl.trans(tl.reshape(x, (ROWS, GROUPS, DEPTH, WIDTH)), 0, 1, 3, 2)
    if DEPTH == 1:
        return (tl.reshape(x, (ROWS, GROUPS, WIDTH)),)
    elif DEPTH == 2:
        return unstack(x, 2)
    elif DEPTH == 4:
        return unstack(tl.reshape(x, (ROWS, GROUPS, WIDTH, 2, 2)), 4)
    elif DEPTH == 8:
        return unstack(tl.reshape(x, (ROWS, GROUPS, WIDTH, 2, 2, 2)), 8)
    elif DEPTH == 16:
        return unstack(tl.reshape(x, (ROWS, GROUPS, WIDTH, 2, 2, 2, 2)), 16)
    elif DEPTH == 32:
        return unstack(tl.reshape(x, (ROWS, GROUPS, WIDTH, 2, 2, 2, 2, 2)), 32)
    else:
        return unstack(tl.reshape(x, (ROWS, GROUPS, WIDTH, 2, 2, 2, 2, 2, 2)), 64)


@triton.jit
def block_sums(xs, weights, DEPTH: tl.constexpr):
    """Return the sums [FRAMES, BLOCKS / W, W·32] of products over the steps of each block: one after the other, fused.

    In newer versions of Triton, tl.sum adds in pairs: half of the products would not be fused, and more values be held.
    """
    sums = xs[0] * weights[0]
    for step in tl.static_range(1, DEPTH):
        sums = tl.fma(xs[step], weights[step], sums)
    return sums


# Compiled once for all lengths. With a stride known to be a multiple of 16, lanes would load four consecutive samples.
@triton.jit(do_not_specialize=["S", "T", "x_stride"])
def complex_mel_kernel(
    x_p, out_p, twiddle_p, bin_p, weight_p,
    S, T, x_stride, threshold,
    N_FFT: tl.constexpr, HOP: tl.constexpr, M: tl.constexpr, W: tl.constexpr,
    BLOCKS: tl.constexpr, DEPTH: tl.constexpr, OWNERS: tl.constexpr, LOG1P: tl.constexpr,
):  # fmt: skip
    """Channel 0: log1p(Σ fb·|X|²), or the sum. Channel 1: Σ fb·((k - c)·|X|² + C)/h / Σ fb·|X|², in ±2, 0 if masked.

    A band is masked if Σ fb·|X|² is at or below threshold. X is the STFT with a periodic Hann window, C the
    reassignment (Kodera 1976; Auger and Flandrin 1995) times |X|². A program computes W·2048/N_FFT frames of one
    waveform, or W if N_FFT is larger. Each warp transforms different frames; the sums over bands are computed together.
    """
    N_COLUMNS: tl.constexpr = N_FFT // 64
    PER_WARP: tl.constexpr = max(1, 32 // N_COLUMNS)
    SQUARES: tl.constexpr = PER_WARP * N_COLUMNS // 32
    FRAMES: tl.constexpr = W * PER_WARP
    n_tiles = tl.cdiv(T, FRAMES)
    i_clip = tl.program_id(0).to(tl.int64) // n_tiles
    t_0 = (tl.program_id(0) % n_tiles) * FRAMES
    x_p += i_clip * x_stride
    out_p += i_clip * (2 * M) * T
    o_lane = tl.broadcast_to(tl.arange(0, 32)[None, :], (W, 32))
    start = t_0.to(tl.int64) * HOP - N_FFT // 2
    if (start >= 0) & (start + (FRAMES - 1) * HOP + N_FFT <= S):
        b_x = load_frames(x_p, t_0, S, T, HOP, N_FFT, W, False)
    else:
        b_x = load_frames(x_p, t_0, S, T, HOP, N_FFT, W, True)
    x = variables(b_x, 64 * SQUARES, W)
    # All warps read the same twiddles. T >> 31 is 0, which the compiler does not know: with the hint, it gives them the
    # layout of the samples.
    o_twiddle = tl.arange(0, 2 * N_COLUMNS)[None, :, None] * 32 + tl.arange(0, 32)[None, None, :]
    o_twiddle = tl.max_contiguous(o_twiddle + tl.arange(0, W)[:, None, None].to(tl.int64) * (T >> 31), (2, 1, 32))
    twiddles = variables(tl.load(twiddle_p + 1 + o_twiddle), 2 * N_COLUMNS, W)
    one = tl.load(twiddle_p + 1 + 64 * N_COLUMNS + o_lane)
    re, im = (), ()
    for f in tl.static_range(PER_WARP):
        frame = x[f * 2 * N_COLUMNS : (f + 1) * 2 * N_COLUMNS]
        column_r, column_i = columns(frame, twiddles[0::2], twiddles[1::2], o_lane, N_COLUMNS)
        re += column_r
        im += column_i
    re, im = rows(re, im, one, SQUARES, W)
    power, shift = (), ()
    for f in tl.static_range(PER_WARP):
        frame_r, frame_i = re[f * N_COLUMNS : (f + 1) * N_COLUMNS], im[f * N_COLUMNS : (f + 1) * N_COLUMNS]
        p, c = stencil(frame_r, frame_i, twiddles[0], twiddles[1], o_lane, N_COLUMNS)
        power += p
        shift += c
    power, shift = flat(power, one, SQUARES, W), flat(shift, one, SQUARES, W)

    # Each weight is loaded once for all frames of the program.
    N_WEIGHTS: tl.constexpr = BLOCKS * DEPTH * 32
    o_weight = tl.max_contiguous(tl.arange(0, N_WEIGHTS), [1])
    b_frame = tl.arange(0, FRAMES)
    o_bin = (b_frame // PER_WARP * (1024 * SQUARES) + b_frame % PER_WARP * N_COLUMNS)[:, None]
    o_bin = tl.reshape(o_bin + tl.load(bin_p + o_weight).to(tl.int32)[None, :], (FRAMES * N_WEIGHTS,))
    b_power = steps(tl.gather(power, o_bin, 0), FRAMES, BLOCKS // W, DEPTH, W * 32)
    b_weight = tl.broadcast_to(tl.load(weight_p + o_weight)[None, :], (FRAMES, N_WEIGHTS))
    b_weight = steps(b_weight, FRAMES, BLOCKS // W, DEPTH, W * 32)
    b_offset = tl.broadcast_to(tl.load(weight_p + N_WEIGHTS + o_weight)[None, :], (FRAMES, N_WEIGHTS))
    b_offset = steps(b_offset, FRAMES, BLOCKS // W, DEPTH, W * 32)
    bottom = block_sums(b_power, b_weight, DEPTH)
    # Summed before the shifts are read, so that powers and shifts need not be held in registers together.
    top = block_sums(b_power, b_offset, DEPTH)
    b_shift = steps(tl.gather(shift, o_bin, 0), FRAMES, BLOCKS // W, DEPTH, W * 32)
    top += block_sums(b_shift, b_weight, DEPTH)
    bottom = variables(tl.reshape(bottom, (FRAMES, BLOCKS, 32)), BLOCKS, FRAMES)
    top = variables(tl.reshape(top, (FRAMES, BLOCKS, 32)), BLOCKS, FRAMES)

    o_frame = (t_0 + b_frame)[:, None]
    for group in tl.static_range((M + 31) // 32):
        energy, moment = bottom[0] * 0.0, top[0] * 0.0
        for block in tl.static_range(BLOCKS):
            if OWNERS[block] == group:
                energy += bottom[block]
                moment += top[block]
        o_band = (32 * group + tl.arange(0, 32))[None, :]
        m_out = (o_frame < T) & (o_band < M)
        o_out = o_band.to(tl.int64) * T + o_frame
        tl.store(out_p + o_out, tl.log(1.0 + energy) if LOG1P else energy, mask=m_out)
        scale = tl.load(weight_p + 2 * N_WEIGHTS + o_band)
        is_heard = energy > threshold
        offset = tl.where(is_heard, moment / tl.where(is_heard, energy, 1.0) * scale, 0.0)
        offset = tl.minimum(tl.maximum(offset, -2.0), 2.0)
        tl.store(out_p + o_out + tl.cast(M, tl.int64) * T, offset, mask=m_out)


# Compiling takes seconds: one thread does it, the others wait and then find the result in Triton's cache. Triton's
# interpreter takes one launch at a time.
_compiling = threading.Lock()


def complex_mel(
    waveform: torch.Tensor, plan: Plan, *, hop_length: int, threshold: float, log1p: bool = True
) -> torch.Tensor:
    """Launch the kernel.

    Parameters
    ----------
    waveform : torch.Tensor
        Shape (B, S), S above n_fft / 2 and below 2³¹ - n_fft; float32, float16 or bfloat16, on the device where the
        kernel runs, with contiguous rows.
    plan : Plan
        From :func:`make_plan`.
    hop_length : int
        Step between frames, samples.
    threshold : float
        Band power at or below which channel 1 is 0.
    log1p : bool, default True
        Whether channel 0 is log1p of the band power, and not the power itself.

    Returns
    -------
    torch.Tensor
        Shape (B, 2, M, T), T = S // hop_length + 1; float32.

    Notes
    -----
    For each launch Triton binds 17 arguments and derives from them which machine code to use, in more than 10 µs. Here
    only the pointer, type and stride of the waveform can change that, so the code is kept in the plan for each kind of
    waveform, and launched directly.
    """
    n_clips, n_samples = waveform.shape
    n_frames = n_samples // hop_length + 1
    out = waveform.new_empty((n_clips, 2, plan.n_mels, n_frames), dtype=torch.float32)
    if n_clips == 0:
        return out
    stride = waveform.stride(0)
    variant = (waveform.device, waveform.dtype, waveform.data_ptr() % 16 == 0, stride < 2**31, hop_length, log1p)
    if torch.version.hip:  # loads and stores in buffers that 32 bits can address differ
        variant += tuple(tensor.untyped_storage().nbytes() < 2**31 for tensor in (waveform, out))
    numbers = (n_samples, n_frames, stride, threshold)
    grid = (n_clips * -(-n_frames // plan.frames_per_program), 1, 1)
    kept = plan.compiled.get(variant)
    if kept is not None:
        code, tables, constants = kept
        code[grid](waveform, out, *tables, *numbers, *constants)  # on the current stream of the current device
        return out
    tables = plan.on(waveform.device)
    constants = (
        plan.n_fft, hop_length, plan.n_mels, plan.rows, plan.blocks, plan.depth, plan.owners, log1p,
    )  # fmt: skip
    with _compiling:
        code = complex_mel_kernel[grid](waveform, out, *tables, *numbers, *constants, **plan.options)
    if code is not None:  # compiled, and not interpreted
        plan.compiled[variant] = code, tables, constants
    return out


def source(plan: Plan, *, hop_length: int) -> tuple[ASTSource, dict[str, int]]:
    """Return what :func:`complex_mel` compiles for float32 samples, and the options, for `triton.compile`."""
    pointers = {"x_p": "*fp32", "out_p": "*fp32", "twiddle_p": "*fp32", "bin_p": "*i16", "weight_p": "*fp32"}
    scalars = {"S": "i32", "T": "i32", "x_stride": "i32", "threshold": "fp32"}
    constants = {
        "N_FFT": plan.n_fft, "HOP": hop_length, "M": plan.n_mels, "W": plan.rows,
        "BLOCKS": plan.blocks, "DEPTH": plan.depth, "OWNERS": plan.owners, "LOG1P": True,
    }  # fmt: skip
    signature = {**pointers, **scalars, **dict.fromkeys(constants, "constexpr")}
    aligned = {(index,): [["tt.divisibility", 16]] for index in range(len(pointers))}
    return ASTSource(complex_mel_kernel, signature, constants, aligned), dict(plan.options)
