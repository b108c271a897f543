"""Numba-compiled functions on rays and pixels: projection, detection, back-projection, penalty.

Every function runs on one thread (a simulation scales over processes) and gives the same bits on
each run of one machine. The calling modules check the arguments: `projector`, `detector`, `recon`,
`iterative` and `denoiser`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

MARGIN_PX = 8
"""Number of empty columns that `prefix_sums` adds on either side of the raster."""


@njit(cache=True, fastmath=True)
def prefix_sums(amounts):
    """Running sums along the rows of two maps, interleaved, and the extent of each row.

    Args:
        amounts: (2, rows, columns).

    Returns:
        Sums up to each column boundary, (rows, columns + 1 + 2 margins, 2), and for each row its
        first and last boundary with anything between, (rows, 2); equal where the row is empty.
    """
    _, rows, columns = amounts.shape
    sums = np.zeros((rows, columns + 1 + 2 * MARGIN_PX, 2), np.float32)
    extent = np.zeros((rows, 2), np.float32)
    for r in range(rows):
        first, last = -1, -1
        soft, bone = 0.0, 0.0
        for c in range(columns):
            a, b = amounts[0, r, c], amounts[1, r, c]
            if a != 0.0 or b != 0.0:
                last = c + 1
                if first < 0:
                    first = c
            soft += a
            bone += b
            sums[r, MARGIN_PX + c + 1, 0] = soft
            sums[r, MARGIN_PX + c + 1, 1] = bone
        for c in range(columns + 1, columns + 1 + MARGIN_PX):
            sums[r, MARGIN_PX + c, 0] = soft
            sums[r, MARGIN_PX + c, 1] = bone
        if first >= 0:
            extent[r, 0] = MARGIN_PX + first
            extent[r, 1] = MARGIN_PX + last
    return sums, extent


@njit(cache=True, fastmath=True)
def ray_slopes(turn, boundary_rad, upright, pixel_mm):
    """Columns that a ray crosses per row, and factors that turn strip sums into mm.

    Args:
        turn: angle of the view; the angle of a ray is this minus its fan angle.
        upright: whether rows of the raster are crossed, or rows of the transposed raster.

    Returns:
        Slope of the ray of each boundary, and factor of each element (path per row over strip
        width).
    """
    count = boundary_rad.shape[0]
    slopes = np.empty(count, np.float32)
    factors = np.empty(count - 1, np.float32)
    before = 0.0
    for b in range(count):
        tangent = math.tan(turn - boundary_rad[b])
        slope = -tangent if upright else -1.0 / tangent
        slopes[b] = slope
        if b > 0:
            middle = turn - (boundary_rad[b] + boundary_rad[b - 1]) / 2
            lean = abs(math.cos(middle)) if upright else abs(math.sin(middle))
            factors[b - 1] = pixel_mm / ((slope - before) * lean)
        before = slope
    return slopes, factors


@njit(cache=True, fastmath=True)
def _boundary_index(slope, turn, sense, boundary_rad, first):
    """Fractional index of the boundary whose ray has this slope; angles count modulo pi."""
    angle = turn + sense * math.atan(slope)
    angle -= math.pi * np.round((angle - boundary_rad[first]) / math.pi)
    return (angle - boundary_rad[0]) / (boundary_rad[1] - boundary_rad[0])


@njit(cache=True, fastmath=True)
def strip_sums(sums, extent, across, along, turn, sense, boundary_rad, first, last, slopes, out):
    """Add, for one view, the mean amount over each detector element's strip, row by row.

    The ray at fan angle g crosses row r (at depth `r + 1/2 - along` from the source) at column
    `across + depth * slope(g)`; the strip between two neighboring boundaries is exact, from two
    values of the row's running sum (distance-driven projection, De Man and Basu 2004).

    Args:
        across, along: source position in columns (margin included) and rows.
        turn, sense: a ray of slope s has the fan angle `turn + sense * atan(s)`, modulo pi.
        first, last: boundaries to use; element e lies between boundaries e and e + 1.
        slopes: columns per row of each boundary's ray.
        out: (elements, 2), added to.
    """
    count = slopes.shape[0]
    index, part = np.empty(count, np.int32), np.empty(count, np.float32)
    values, flat = np.empty(2 * count, np.float32), out.reshape(-1)
    for r in range(sums.shape[0]):
        if extent[r, 1] <= extent[r, 0]:
            continue
        depth = r + 0.5 - along
        a = _boundary_index((extent[r, 0] - across) / depth, turn, sense, boundary_rad, first)
        b = _boundary_index((extent[r, 1] - across) / depth, turn, sense, boundary_rad, first)
        start = max(first, math.floor(min(a, b)) - 1)
        stop = min(last, math.ceil(max(a, b)) + 1)
        if stop <= start:
            continue
        _add_strips(
            sums[r],
            np.float32(across),
            np.float32(depth),
            np.float32(1.0 / depth),
            slopes[start : stop + 1],
            flat[2 * start : 2 * stop],
            index,
            part,
            values,
        )


@njit(cache=True, fastmath=True)
def _add_strips(row, across, depth, weight, slopes, out, index, part, values):
    """Add the strips of one row for `strip_sums`, in three passes; the first and last vectorize.

    `out` and `values` are flat and alternate between soft and bone. Unsigned indices avoid the
    test of numba for negative ones.
    """
    top = np.float32(row.shape[0] - 1.001)
    for k in range(slopes.shape[0]):
        x = min(max(across + depth * slopes[k], np.float32(0.0)), top)
        index[k] = np.int32(x)
        part[k] = x - np.float32(index[k])
    one = np.uint32(1)
    for k in range(slopes.shape[0]):
        i, f = np.uint32(index[k]), part[k]
        soft, bone = row[i, 0], row[i, 1]
        values[2 * k] = soft + f * (row[i + one, 0] - soft)
        values[2 * k + 1] = bone + f * (row[i + one, 1] - bone)
    for j in range(out.shape[0]):
        out[j] += (values[j + 2] - values[j]) * weight


@njit(cache=True, fastmath=True)
def strip_sums_adjoint(view, across, along, first, last, slopes, sums):
    """Add the transpose of `strip_sums` for one view to the coefficients of the running sums."""
    for r in range(sums.shape[0]):
        depth = r + 0.5 - along
        weight = np.float32(1.0 / depth)
        d, x0 = np.float32(depth), np.float32(across)
        top = np.float32(sums.shape[1] - 1.001)
        for b in range(first, last + 1):
            x = min(max(x0 + d * slopes[b], np.float32(0.0)), top)
            i = np.int32(x)
            f = x - np.float32(i)
            for k in range(2):
                left = view[b - 1, k] if b > first else np.float32(0.0)
                right = view[b, k] if b < last else np.float32(0.0)
                value = (left - right) * weight
                sums[r, i, k] += (1 - f) * value
                sums[r, i + 1, k] += f * value


@njit(cache=True, fastmath=True)
def aperture_means(lines, outer, step, out):
    """Weighted means over the four elements of each reading.

    Args:
        lines: (views, elements, 2).
        outer: weight a of `(a, 1 - a, 1 - a, a) / 2`; elements off the detector count as 0.
        step: number of elements from one reading to the next.
        out: (2, views, readings), written.
    """
    elements = lines.shape[1]
    inside, outside = np.float32((1 - outer) / 2), np.float32(outer / 2)
    for m in range(2):
        for v in range(lines.shape[0]):
            for r in range(out.shape[2]):
                e = r * step
                total = inside * (lines[v, e, m] + lines[v, e + 1, m])
                if e > 0:
                    total += outside * lines[v, e - 1, m]
                if e + 2 < elements:
                    total += outside * lines[v, e + 2, m]
                out[m, v, r] = total


@njit(cache=True, fastmath=True)
def back_project(filtered, cosines, sines, first_mm, step_mm, x_mm, y_mm, out):
    """Add filtered parallel projections to an image, interpolated linearly between samples.

    Args:
        filtered: (angles, samples), an even number of angles; sample k lies at
            `first_mm + k step_mm` from the isocentre.
        x_mm, y_mm: pixel centres, both equally spaced.
        out: (rows, columns), added to. All pixels must lie within the samples.
    """
    one = np.uint32(1)
    columns = x_mm.shape[0]
    dx = (x_mm[1] - x_mm[0]) / step_mm if columns > 1 else 0.0
    p_index, p_part = np.empty(columns, np.int32), np.empty(columns, np.float32)
    q_index, q_part = np.empty(columns, np.int32), np.empty(columns, np.float32)
    for a in range(0, filtered.shape[0] - 1, 2):
        p, q = filtered[a], filtered[a + 1]
        p_step, q_step = np.float32(cosines[a] * dx), np.float32(cosines[a + 1] * dx)
        p_x = (x_mm[0] * cosines[a] - first_mm) / step_mm
        q_x = (x_mm[0] * cosines[a + 1] - first_mm) / step_mm
        for r in range(y_mm.shape[0]):
            p_start = np.float32(p_x + y_mm[r] * sines[a] / step_mm)
            q_start = np.float32(q_x + y_mm[r] * sines[a + 1] / step_mm)
            for c in range(columns):
                t = p_start + np.float32(c) * p_step
                p_index[c] = np.int32(t)
                p_part[c] = t - np.float32(p_index[c])
                u = q_start + np.float32(c) * q_step
                q_index[c] = np.int32(u)
                q_part[c] = u - np.float32(q_index[c])
            row = out[r]
            for c in range(columns):
                i, j = np.uint32(p_index[c]), np.uint32(q_index[c])
                from_p = p[i] + p_part[c] * (p[i + one] - p[i])
                row[c] += from_p + q[j] + q_part[c] * (q[j + one] - q[j])


@njit(cache=True, fastmath=True)
def weighted_gather(values, first, weights, out):
    """Compute each output sample as a weighted sum of neighboring input samples, row by row.

    Args:
        values: (rows, samples).
        first: index of the first input sample of each output sample.
        weights: (outputs, taps).
        out: (rows, outputs), written.
    """
    taps = weights.shape[1]
    for r in range(values.shape[0]):
        for k in range(first.shape[0]):
            total = np.float32(0.0)
            for j in range(taps):
                total += weights[k, j] * values[r, first[k] + j]
            out[r, k] = total


@njit(cache=True, fastmath=True, inline="always")
def _exp(x):
    """Exponential function for x <= 0 in float32, with a relative error of 2e-7; it vectorizes.

    It is 2^floor(y), composed from bits, times a polynomial of the remainder (Chebyshev fit).
    """
    y = max(x * np.float32(1.4426950408889634), np.float32(-126.0))
    whole = np.floor(y)
    f = y - whole
    power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    series = np.float32(1.877576475e-03)
    series = series * f + np.float32(8.989340576e-03)
    series = series * f + np.float32(5.582631765e-02)
    series = series * f + np.float32(2.401536172e-01)
    series = series * f + np.float32(6.931530732e-01)
    series = series * f + np.float32(9.999999251e-01)
    return power * series


@njit(cache=True, fastmath=True)
def detected_energy(soft_mm, bone_mm, soft, bone, energy, variance, signal, spread):
    """Mean detected energy of each reading and the variance of its compound Poisson noise.

    Args:
        soft_mm, bone_mm: (views, readings): mm of each basis material at its full density.
        soft, bone: attenuation of the basis materials in each energy bin, 1/mm.
        energy, variance: (bins, readings): energy and squared energy of the photons of each bin
            without an object, in keV and keV^2.
        signal, spread: (views, readings), written.
    """
    for v in range(soft_mm.shape[0]):
        mean, noise = signal[v], spread[v]
        s_mm, b_mm = soft_mm[v], bone_mm[v]
        mean[:] = 0.0
        noise[:] = 0.0
        for e in range(soft.shape[0]):
            s, b = -soft[e], -bone[e]
            e_row, v_row = energy[e], variance[e]
            for c in range(s_mm.shape[0]):
                through = _exp(s * s_mm[c] + b * b_mm[c])
                mean[c] += e_row[c] * through
                noise[c] += v_row[c] * through


@njit(cache=True, fastmath=True)
def water_paths(readings, blank, floor, coefficients, out):
    """Convert readings to mm of water by the logarithm and the polynomial of each channel.

    Args:
        readings: (views, channels), keV; values below `floor` count as `floor`.
        blank: (channels,) readings without an object.
        coefficients: (channels, order): of p, p^2, ...
        out: (views, channels), written.
    """
    order = coefficients.shape[1]
    for v in range(readings.shape[0]):
        for c in range(readings.shape[1]):
            p = math.log(blank[c] / max(readings[v, c], floor))
            total = 0.0
            for k in range(order - 1, -1, -1):
                total = (total + coefficients[c, k]) * p
            out[v, c] = total


@njit(cache=True, fastmath=True)
def water_variances(readings, scatter, shares, blank, floor, energy, dark, coefficients, out):
    """Variance of each water path, propagated from photon noise and electronic noise.

    Args:
        readings: (views, channels), keV; values below `floor` count as `floor`.
        scatter: (views, channels), keV, subtracted from the readings, which keep its noise.
        shares: (views,) tube load of each view over the mean.
        blank: (channels,) readings without an object at the mean load.
        energy: (channels,) sum E^2 N over sum E N, the variance per detected keV.
        dark: variance of the electronic noise, keV^2.
        coefficients: (channels, order): of p, p^2, ... in the polynomial of the water path.
        out: (views, channels), written.
    """
    order = coefficients.shape[1]
    for v in range(readings.shape[0]):
        for c in range(readings.shape[1]):
            signal = max(readings[v, c], floor)
            p = math.log(blank[c] * shares[v] / signal)
            slope = 0.0
            for k in range(order - 1, -1, -1):
                slope = slope * p + (k + 1) * coefficients[c, k]
            out[v, c] = (energy[c] * (signal + scatter[v, c]) + dark) * (slope / signal) ** 2


@njit(cache=True, fastmath=True)
def _sample_places(start, step, index, part):
    """Sample index and fraction of the equally spaced pixels of a row, for both directions."""
    for c in range(index.shape[0]):
        t = start + np.float32(c) * step
        index[c] = np.int32(t)
        part[c] = t - np.float32(index[c])


@njit(cache=True, fastmath=True)
def spread_parallel(image, flipped, cosines, sines, step, middle, out):
    """Parallel projections of a square image; each pixel is shared between two samples.

    Args:
        image, flipped: (size, size); `flipped` is the contiguous transpose of `image`.
        cosines, sines: (angles,) of the angles of the rays.
        step: ratio of the distances between pixels and between samples.
        middle: sample on which the centre of the image falls.
        out: (angles, samples), written. The samples must extend beyond the corners of the image.
    """
    size, samples = image.shape[0], out.shape[1]
    index, part = np.empty(size, np.int32), np.empty(size, np.float32)
    near, far, shared = np.empty_like(out[0]), np.empty_like(out[0]), np.empty_like(image[0])
    half = (size - 1) / 2
    for a in range(out.shape[0]):
        upright = abs(cosines[a]) >= abs(sines[a])
        source = image if upright else flipped
        along = step * (cosines[a] if upright else sines[a])
        across = step * (sines[a] if upright else cosines[a])
        near[:] = 0.0
        far[:] = 0.0
        for r in range(size):
            start = np.float32(middle - half * along + (r - half) * across)
            _sample_places(start, np.float32(along), index, part)
            row = source[r]
            for c in range(size):
                shared[c] = part[c] * row[c]
            for c in range(size):
                i = np.uint32(index[c])
                near[i] += row[c] - shared[c]
                far[i] += shared[c]
        out[a, 0] = near[0]
        for s in range(1, samples):
            out[a, s] = near[s] + far[s - 1]


@njit(cache=True, fastmath=True)
def gather_parallel(values, cosines, sines, step, middle, image, flipped):
    """Transpose of `spread_parallel`, added to an image and to a transposed image.

    Args:
        values: (angles, samples).
        image, flipped: (size, size); the result is `image` plus the transpose of `flipped`.
    """
    size, angles = image.shape[0], values.shape[0]
    p_index, p_part = np.empty(size, np.int32), np.empty(size, np.float32)
    q_index, q_part = np.empty(size, np.int32), np.empty(size, np.float32)
    one, half = np.uint32(1), (size - 1) / 2
    a = 0
    while a < angles:
        upright = abs(cosines[a]) >= abs(sines[a])
        b = min(a + 1, angles - 1)
        both = b > a and (abs(cosines[b]) >= abs(sines[b])) == upright
        target = image if upright else flipped
        p_along = step * (cosines[a] if upright else sines[a])
        p_across = step * (sines[a] if upright else cosines[a])
        q_along = step * (cosines[b] if upright else sines[b])
        q_across = step * (sines[b] if upright else cosines[b])
        p, q = values[a], values[b]
        for r in range(size):
            start = np.float32(middle - half * p_along + (r - half) * p_across)
            _sample_places(start, np.float32(p_along), p_index, p_part)
            row = target[r]
            if both:
                start = np.float32(middle - half * q_along + (r - half) * q_across)
                _sample_places(start, np.float32(q_along), q_index, q_part)
                for c in range(size):
                    i, j = np.uint32(p_index[c]), np.uint32(q_index[c])
                    from_p = p[i] + p_part[c] * (p[i + one] - p[i])
                    row[c] += from_p + q[j] + q_part[c] * (q[j + one] - q[j])
            else:
                for c in range(size):
                    i = np.uint32(p_index[c])
                    row[c] += p[i] + p_part[c] * (p[i + one] - p[i])
        a += 2 if both else 1


@njit(cache=True, fastmath=True)
def resample_rows(values, first, step, out):
    """Interpolate each row linearly at equally spaced positions; values off the row are 0.

    Args:
        values: (rows, samples).
        first: (rows,) fractional index of the first position of each row.
        step: distance between positions in samples.
        out: (rows, positions), written.
    """
    last = values.shape[1] - 1
    for r in range(out.shape[0]):
        for k in range(out.shape[1]):
            place = first[r] + k * step
            if place < 0 or place >= last:
                out[r, k] = 0.0
            else:
                i = int(place)
                part = np.float32(place - i)
                out[r, k] = values[r, i] + part * (values[r, i + 1] - values[r, i])


@njit(cache=True, fastmath=True)
def penalty_gradient(image, root, sharpness, out):
    """Gradient of the edge-preserving penalty between each pixel and its 8 neighbors.

    A pair's potential is `root_j root_k share delta^2 (sqrt(1 + (t / delta)^2) - 1)` of its
    difference t, with 1 / delta the mean of the two pixels' `sharpness` and share 1, or 1 / sqrt(2)
    on the diagonal.

    Args:
        image, root, sharpness: (rows, columns).
        out: (rows, columns), written.
    """
    rows, columns = image.shape
    out[:] = 0.0
    pull = np.empty_like(image[0])
    one, half = np.float32(1.0), np.float32(0.5)
    for r in range(rows):
        for k in range(4):
            down, right = (0 if k == 0 else 1), (1 if k == 0 else k - 2)
            if r + down == rows:
                continue
            share = one if down * right == 0 else np.float32(math.sqrt(0.5))
            here, there = max(0, -right), max(0, right)
            count = columns - abs(right)
            a, b = image[r, here : here + count], image[r + down, there : there + count]
            p, q = root[r, here : here + count], root[r + down, there : there + count]
            u, v = sharpness[r, here : here + count], sharpness[r + down, there : there + count]
            to, back = out[r, here : here + count], out[r + down, there : there + count]
            for c in range(count):
                t = a[c] - b[c]
                steep = t * (u[c] + v[c]) * half
                pull[c] = share * p[c] * q[c] * t / np.sqrt(one + steep * steep)
            for c in range(count):
                to[c] += pull[c]
            for c in range(count):
                back[c] -= pull[c]


@njit(cache=True, fastmath=True)
def penalty_value(image, root, sharpness):
    """Sum of the potentials of `penalty_gradient` over all pairs of neighbors."""
    rows, columns = image.shape
    total = 0.0
    for k in range(4):
        down, right = (0 if k == 0 else 1), (1 if k == 0 else k - 2)
        share = 1.0 if down * right == 0 else math.sqrt(0.5)
        first, last = max(0, -right), columns - max(0, right)
        for r in range(rows - down):
            for c in range(first, last):
                t = image[r, c] - image[r + down, c + right]
                per = (sharpness[r, c] + sharpness[r + down, c + right]) / 2
                weight = share * root[r, c] * root[r + down, c + right] / per**2
                total += weight * (math.sqrt(1 + (t * per) ** 2) - 1)
    return total
