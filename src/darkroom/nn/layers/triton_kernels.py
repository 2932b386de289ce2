# mypy: ignore-errors
# ruff: noqa: N803
"""The programs behind `nn.kernels`, in Triton, which comes with PyTorch's builds for CUDA. Imported by that file alone.

Pictures lie channels last: (N, H * W, C) in memory. All sums are float32, in an order that the shape alone decides.
"""

import triton
import triton.language as tl

ROWS, COLUMNS = 32, 64  # of the tile of positions and channels that a program takes at once
CHUNKS = 128  # of positions, over which sums are taken apart and then joined: at most so many
PARTS = 16  # chunks whose sums are read at once
FLAT = 1024  # elements of a program over a flat tensor


@triton.jit
def _channel_sums(
    x, added, sums, squares, positions, channels, chunk, added_stride,
    ADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum and sum of squares of each channel of x + added, over each chunk of positions."""
    of, n, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    columns = part * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    first = x + n.to(tl.int64) * positions * channels
    total = tl.zeros([COLUMNS], tl.float32)
    square = tl.zeros([COLUMNS], tl.float32)
    if ADDED:
        more = tl.load(added + n * added_stride + columns, mask=inside, other=0.0).to(tl.float32)
    for start in range(0, chunk, ROWS):
        rows = of * chunk + start + tl.arange(0, ROWS)
        here = (rows < positions)[:, None] & inside[None, :]
        value = tl.load(first + rows[:, None].to(tl.int64) * channels + columns[None, :], mask=here, other=0.0)
        value = value.to(tl.float32)
        if ADDED:
            value = tl.where(here, value + more[None, :], 0.0)
        total += tl.sum(value, axis=0)
        square += tl.sum(value * value, axis=0)
    at = (n * tl.num_programs(0) + of) * channels + columns
    tl.store(sums + at, total, mask=inside)
    tl.store(squares + at, square, mask=inside)


@triton.jit
def _scale_and_shift(
    sums, squares, weight, bias, added, scale, shift, centre, rstd,
    channels, width, count, chunks, added_stride, eps,
    ADDED: tl.constexpr, KEPT: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Of each channel, what a group norm multiplies it with and adds to it, from the sums of its group's channels.

    count: of the values of a group, as a float. KEPT: store centre and rstd too, (x - centre) * rstd being normalised.
    """
    n, group = tl.program_id(0), tl.program_id(1)
    inner = tl.arange(0, WIDTH)
    columns = group * width + inner
    inside = inner < width
    total = tl.zeros([PARTS, WIDTH], tl.float32)
    square = tl.zeros([PARTS, WIDTH], tl.float32)
    for start in range(0, chunks, PARTS):
        slices = start + tl.arange(0, PARTS)
        here = (slices < chunks)[:, None] & inside[None, :]
        at = (n * chunks + slices)[:, None] * channels + columns[None, :]
        total += tl.load(sums + at, mask=here, other=0.0)
        square += tl.load(squares + at, mask=here, other=0.0)
    mean = tl.sum(tl.sum(total, axis=0), axis=0) / count
    second = tl.sum(tl.sum(square, axis=0), axis=0) / count
    variance = tl.maximum(second - mean * mean, 0.0)
    inverse = 1.0 / tl.sqrt(variance + eps)
    by = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32) * inverse
    middle = tl.zeros([WIDTH], tl.float32) + mean
    if ADDED:
        middle -= tl.load(added + n * added_stride + columns, mask=inside, other=0.0).to(tl.float32)
    plus = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32) - middle * by
    tl.store(scale + n * channels + columns, by, mask=inside)
    tl.store(shift + n * channels + columns, plus, mask=inside)
    if KEPT:
        tl.store(centre + n * channels + columns, middle, mask=inside)
        tl.store(rstd + n * channels + columns, tl.zeros([WIDTH], tl.float32) + inverse, mask=inside)


@triton.jit
def _scaled(
    x, scale, shift, out, positions, channels,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x * scale + shift of each channel, and SiLU of that."""
    n = tl.program_id(1)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    here = (rows < positions)[:, None] & inside[None, :]
    at = n.to(tl.int64) * positions * channels + rows[:, None].to(tl.int64) * channels + columns[None, :]
    by = tl.load(scale + n * channels + columns, mask=inside, other=0.0)
    plus = tl.load(shift + n * channels + columns, mask=inside, other=0.0)
    value = tl.load(x + at, mask=here, other=0.0).to(tl.float32) * by[None, :] + plus[None, :]
    if SILU:
        value = value / (1.0 + tl.exp(-value))
    tl.store(out + at, value.to(out.dtype.element_ty), mask=here)


@triton.jit
def before_silu(dy, normed):
    """The gradient of what SiLU was taken of, from that of its result."""
    sigmoid = 1.0 / (1.0 + tl.exp(-normed))
    return dy * sigmoid * (1.0 + normed * (1.0 - sigmoid))


@triton.jit
def _gradient_sums(
    x, dy, weight, bias, centre, rstd, sums, positions, channels, chunk,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of each channel, over each chunk of positions: the sums of dn, dn * xhat and xhat, behind each other in `sums`.

    xhat: what is normalised; dn: the gradient of xhat * weight + bias.
    """
    of, n, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    columns = part * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    first = n.to(tl.int64) * positions * channels
    middle = tl.load(centre + n * channels + columns, mask=inside, other=0.0)
    by = tl.load(rstd + n * channels + columns, mask=inside, other=0.0)
    gamma = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    beta = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    plain = tl.zeros([COLUMNS], tl.float32)
    crossed = tl.zeros([COLUMNS], tl.float32)
    hats = tl.zeros([COLUMNS], tl.float32)
    for start in range(0, chunk, ROWS):
        rows = of * chunk + start + tl.arange(0, ROWS)
        here = (rows < positions)[:, None] & inside[None, :]
        at = first + rows[:, None].to(tl.int64) * channels + columns[None, :]
        hat = (tl.load(x + at, mask=here, other=0.0).to(tl.float32) - middle[None, :]) * by[None, :]
        hat = tl.where(here, hat, 0.0)
        d = tl.load(dy + at, mask=here, other=0.0).to(tl.float32)
        if SILU:
            d = before_silu(d, hat * gamma[None, :] + beta[None, :])
        plain += tl.sum(d, axis=0)
        crossed += tl.sum(d * hat, axis=0)
        hats += tl.sum(hat, axis=0)
    plane = tl.num_programs(0) * tl.num_programs(1) * channels
    at = (n * tl.num_programs(0) + of) * channels + columns
    tl.store(sums + at, plain, mask=inside)
    tl.store(sums + plane + at, crossed, mask=inside)
    tl.store(sums + 2 * plane + at, hats, mask=inside)


@triton.jit
def _gradient_factors(
    sums, weight, rstd, totals, channels, width, positions, chunks,
    WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Of each sample and channel, behind each other in `totals`: the gradients of bias and weight, what is taken from
    dn * weight * rstd to get that of x (a number, and one for each unit of xhat), and the sum of the gradient of x.

    positions: as a float.
    """
    n, group = tl.program_id(0), tl.program_id(1)
    inner = tl.arange(0, WIDTH)
    columns = group * width + inner
    inside = inner < width
    read = tl.num_programs(0) * chunks * channels
    plains = tl.zeros([PARTS, WIDTH], tl.float32)
    crosses = tl.zeros([PARTS, WIDTH], tl.float32)
    hats = tl.zeros([PARTS, WIDTH], tl.float32)
    for start in range(0, chunks, PARTS):
        slices = start + tl.arange(0, PARTS)
        here = (slices < chunks)[:, None] & inside[None, :]
        at = (n * chunks + slices)[:, None] * channels + columns[None, :]
        plains += tl.load(sums + at, mask=here, other=0.0)
        crosses += tl.load(sums + read + at, mask=here, other=0.0)
        hats += tl.load(sums + 2 * read + at, mask=here, other=0.0)
    plain = tl.sum(plains, axis=0)
    crossed = tl.sum(crosses, axis=0)
    hat = tl.sum(hats, axis=0)
    gamma = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    by = tl.load(rstd + n * channels + columns, mask=inside, other=0.0)
    count = positions * width
    minus = by * (tl.sum(gamma * plain, axis=0) / count)
    slope = by * (tl.sum(gamma * crossed, axis=0) / count)
    plane = tl.num_programs(0) * channels
    target = totals + n * channels + columns
    tl.store(target, plain, mask=inside)
    tl.store(target + plane, crossed, mask=inside)
    tl.store(target + 2 * plane, minus, mask=inside)
    tl.store(target + 3 * plane, slope, mask=inside)
    tl.store(target + 4 * plane, by * gamma * plain - positions * minus - slope * hat, mask=inside)


@triton.jit
def _gradient(
    x, dy, weight, bias, centre, rstd, minus, slope, dx, positions, channels,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """That of x, with what `gradient_factors` found."""
    n = tl.program_id(1)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    here = (rows < positions)[:, None] & inside[None, :]
    at = n.to(tl.int64) * positions * channels + rows[:, None].to(tl.int64) * channels + columns[None, :]
    channel = n * channels + columns
    middle = tl.load(centre + channel, mask=inside, other=0.0)
    by = tl.load(rstd + channel, mask=inside, other=0.0)
    less = tl.load(minus + channel, mask=inside, other=0.0)
    each = tl.load(slope + channel, mask=inside, other=0.0)
    gamma = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    hat = (tl.load(x + at, mask=here, other=0.0).to(tl.float32) - middle[None, :]) * by[None, :]
    d = tl.load(dy + at, mask=here, other=0.0).to(tl.float32)
    if SILU:
        beta = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
        d = before_silu(d, hat * gamma[None, :] + beta[None, :])
    value = d * (gamma * by)[None, :] - less[None, :] - hat * each[None, :]
    tl.store(dx + at, value.to(dx.dtype.element_ty), mask=here)


@triton.jit
def layer_norm(x, weight, bias, out, channels, eps, COLUMNS: tl.constexpr):
    """The layer norm of a row."""
    columns = tl.arange(0, COLUMNS)
    inside = columns < channels
    at = tl.program_id(0).to(tl.int64) * channels + columns
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=0) / channels
    apart = tl.where(inside, value - mean, 0.0)
    by = 1.0 / tl.sqrt(tl.sum(apart * apart, axis=0) / channels + eps)
    weights = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    plus = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (apart * by * weights + plus).to(out.dtype.element_ty), mask=inside)


@triton.jit
def gated(x, out, inner, FLAT: tl.constexpr):
    """The first half of a row times the GELU of the second."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * FLAT + tl.arange(0, FLAT)
    inside = columns < inner
    value = tl.load(x + row * 2 * inner + columns, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + row * 2 * inner + inner + columns, mask=inside, other=0.0).to(tl.float32)
    gate = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row * inner + columns, (value * gate).to(out.dtype.element_ty), mask=inside)


@triton.jit
def sum_of_three(h, x, bias, positions, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """h + x + bias of each channel, in the at of h."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    here = (rows < positions)[:, None] & inside[None, :]
    at = rows[:, None].to(tl.int64) * channels + columns[None, :]
    value = tl.load(h + at, mask=here, other=0.0).to(tl.float32)
    value += tl.load(x + at, mask=here, other=0.0).to(tl.float32)
    value += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    tl.store(h + at, value.to(h.dtype.element_ty), mask=here)
