"""The phantom's compiled geometry: splines, distances to tubes, growth of trees.

All functions here are compiled by numba and single-threaded; arrays are float32 unless noted.
An image is addressed as [row, column] = [y, x]. Distances are signed, in mm, negative inside.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _weights(t):
    """Weights of the four nodes around a position, `t` past the second: uniform cubic B-spline."""
    s = 1.0 - t
    return (
        np.float32(s * s * s / 6.0),
        np.float32((3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0),
        np.float32((3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0),
        np.float32(t * t * t / 6.0),
    )


@njit(cache=True)
def _node(index, count, periodic):
    """Index of an existing node for any `index`: wrapped around if periodic, else clipped."""
    if periodic:
        return index % count
    return min(max(index, 0), count - 1)


@njit(cache=True)
def plane_between(nodes, position, periodic):
    """The plane [rows, columns] of a spline's nodes at a fractional slice index."""
    first = int(np.floor(position))
    w0, w1, w2, w3 = _weights(position - first)
    count = nodes.shape[0]
    a = nodes[_node(first - 1, count, periodic)]
    b = nodes[_node(first, count, periodic)]
    c = nodes[_node(first + 1, count, periodic)]
    d = nodes[_node(first + 2, count, periodic)]
    out = np.empty_like(a)
    for r in range(a.shape[0]):
        for k in range(a.shape[1]):
            out[r, k] = w0 * a[r, k] + w1 * b[r, k] + w2 * c[r, k] + w3 * d[r, k]
    return out


@njit(cache=True)
def refine(plane, row_start, row_step, column_start, column_step, periodic, out):
    """Fill `out` with a spline plane; pixel [r, c] lies at node `start + step * index`."""
    rows, columns = out.shape
    node_rows, node_columns = plane.shape
    index = np.empty((columns, 4), np.int64)
    weight = np.empty((columns, 4), np.float32)
    for c in range(columns):
        position = column_start + column_step * c
        first = int(np.floor(position))
        w = _weights(position - first)
        for k in range(4):
            index[c, k] = _node(first - 1 + k, node_columns, periodic)
            weight[c, k] = w[k]
    line = np.empty(node_columns, np.float32)
    for r in range(rows):
        position = row_start + row_step * r
        first = int(np.floor(position))
        w0, w1, w2, w3 = _weights(position - first)
        n0 = _node(first - 1, node_rows, periodic)
        n1 = _node(first, node_rows, periodic)
        n2 = _node(first + 1, node_rows, periodic)
        n3 = _node(first + 2, node_rows, periodic)
        for k in range(node_columns):
            line[k] = w0 * plane[n0, k] + w1 * plane[n1, k] + w2 * plane[n2, k] + w3 * plane[n3, k]
        for c in range(columns):
            out[r, c] = (
                weight[c, 0] * line[index[c, 0]]
                + weight[c, 1] * line[index[c, 1]]
                + weight[c, 2] * line[index[c, 2]]
                + weight[c, 3] * line[index[c, 3]]
            )


@njit(cache=True)
def _span(low, high, start, step, count):
    """First index and end of the pixels between two coordinates."""
    first = int(np.ceil((low - start) / step))
    last = int(np.floor((high - start) / step))
    return max(first, 0), min(last + 1, count)


@njit(cache=True)
def _window(start, end, z, reach, x0, y0, step, rows, columns):
    """First and last row and column that a tube can reach at this z; none where it cannot."""
    t0, t1 = np.float32(0.0), np.float32(1.0)
    dz = end[2] - start[2]
    if abs(dz) > 1e-6:
        ta, tb = (z - reach - start[2]) / dz, (z + reach - start[2]) / dz
        t0, t1 = max(t0, min(ta, tb)), min(t1, max(ta, tb))
    elif abs(z - start[2]) > reach:
        return 0, 0, 0, 0
    if t0 > t1:
        return 0, 0, 0, 0
    dx, dy = end[0] - start[0], end[1] - start[1]
    xa, xb = start[0] + t0 * dx, start[0] + t1 * dx
    ya, yb = start[1] + t0 * dy, start[1] + t1 * dy
    c0, c1 = _span(min(xa, xb) - reach, max(xa, xb) + reach, x0, step, columns)
    r0, r1 = _span(min(ya, yb) - reach, max(ya, yb) + reach, y0, step, rows)
    return r0, r1, c0, c1


@njit(cache=True)
def tube_distance(starts, ends, radii, z, x0, y0, step, margin, out):
    """Lower `out` to the distance from tapered capsules, wherever that is below `margin`.

    Args:
        starts, ends: [tubes, 3], the axis of each tube, mm.
        radii: [tubes, 2], its radius at either end, mm.
        x0, y0, step: centre of pixel [0, 0] and pixel distance, mm.
    """
    rows, columns = out.shape
    for i in range(starts.shape[0]):
        ax, ay, az = starts[i, 0], starts[i, 1], starts[i, 2]
        dx, dy, dz = ends[i, 0] - ax, ends[i, 1] - ay, ends[i, 2] - az
        ra = radii[i, 0]
        dr = radii[i, 1] - ra
        reach = max(ra, ra + dr) + margin
        r0, r1, c0, c1 = _window(starts[i], ends[i], z, reach, x0, y0, step, rows, columns)
        inverse = np.float32(1.0) / max(dx * dx + dy * dy + dz * dz, np.float32(1e-9))
        pz = z - az
        for r in range(r0, r1):
            py = np.float32(y0 + r * step) - ay
            for c in range(c0, c1):
                px = np.float32(x0 + c * step) - ax
                t = (px * dx + py * dy + pz * dz) * inverse
                t = min(max(t, np.float32(0.0)), np.float32(1.0))
                ox, oy, oz = px - t * dx, py - t * dy, pz - t * dz
                radius = ra + t * dr
                squared = ox * ox + oy * oy + oz * oz
                limit = min(out[r, c], margin) + radius
                if limit > 0.0 and squared < limit * limit:
                    out[r, c] = np.sqrt(squared) - radius


@njit(cache=True)
def oval_distance(starts, ends, across, half_mm, z, x0, y0, step, margin, out):
    """Lower `out` to the distance from tubes of oval section (to first order).

    Args:
        across: [tubes, 3], unit vector of the section's first axis, at right angles to the tube.
        half_mm: [tubes, 4], half-widths along the first and second axis, at start and end.
    """
    rows, columns = out.shape
    for i in range(starts.shape[0]):
        ax, ay, az = starts[i, 0], starts[i, 1], starts[i, 2]
        dx, dy, dz = ends[i, 0] - ax, ends[i, 1] - ay, ends[i, 2] - az
        length = np.sqrt(dx * dx + dy * dy + dz * dz)
        tx, ty, tz = dx / length, dy / length, dz / length
        ux, uy, uz = across[i, 0], across[i, 1], across[i, 2]
        vx, vy, vz = ty * uz - tz * uy, tz * ux - tx * uz, tx * uy - ty * ux
        reach = half_mm[i].max() + margin
        r0, r1, c0, c1 = _window(starts[i], ends[i], z, reach, x0, y0, step, rows, columns)
        pz = z - az
        for r in range(r0, r1):
            py = np.float32(y0 + r * step) - ay
            for c in range(c0, c1):
                px = np.float32(x0 + c * step) - ax
                along = px * tx + py * ty + pz * tz
                t = min(max(along / length, np.float32(0.0)), np.float32(1.0))
                a = half_mm[i, 0] + t * (half_mm[i, 2] - half_mm[i, 0])
                b = half_mm[i, 1] + t * (half_mm[i, 3] - half_mm[i, 1])
                ox, oy, oz = px - t * dx, py - t * dy, pz - t * dz
                u = (ox * ux + oy * uy + oz * uz) / a
                v = (ox * vx + oy * vy + oz * vz) / b
                w = (along - t * length) / a
                q = np.sqrt(u * u + v * v + w * w)
                g = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / a) ** 2)
                distance = q * (q - np.float32(1.0)) / g if g > 1e-6 else -min(a, b)
                out[r, c] = min(out[r, c], distance)


@njit(cache=True)
def grow_tree(root, cloud, chances, growth, hilar, ahead, least, spread):
    """Branches from a root into a cloud of points, of which each ends one twig; see `vessels`.

    Args:
        root: [3]; cloud: [points, 3]; float64, the cloud is reordered.
        chances: [4 * points], uniform in [0, 1).
        growth: share of the way to the middle of its points that a branch grows.
        hilar: by how much that is less, relatively, for the root; a branch with half of all points
            is shortened half as much.
        ahead: how far a branch keeps to its parent's direction, 0 to 1.
        least, spread: a branch passes a share of its points between `least` and `least + spread`
            to one of its two daughters.

    Returns:
        starts and ends [branches, 3], the branch each springs from, the twigs each bears.
    """
    count = len(cloud)
    starts = np.empty((2 * count, 3))
    ends = np.empty((2 * count, 3))
    parents = np.empty(2 * count, np.int64)
    twigs = np.empty(2 * count, np.int64)
    pending = np.empty((2 * count, 3), np.int64)  # first point, end, parent of branches to come
    pending[0, 0], pending[0, 1], pending[0, 2] = 0, count, -1
    headings = np.zeros((2 * count, 3))
    n_pending, n_branches = 1, 0
    keys = np.empty(count)
    while n_pending > 0:
        n_pending -= 1
        first, last, parent = pending[n_pending]
        size = last - first
        start = root if parent < 0 else ends[parent]
        middle = np.zeros(3)
        for i in range(first, last):
            middle += cloud[i]
        way = middle / size - start
        distance = np.sqrt((way * way).sum()) + 1e-6
        heading = way / distance
        if parent >= 0:
            heading = (1 - ahead) * heading + ahead * headings[parent]
            heading /= np.sqrt((heading * heading).sum())
        branch = n_branches
        n_branches += 1
        starts[branch], parents[branch], twigs[branch] = start, parent, size
        headings[branch] = heading
        length = 0.9 if size == 1 else growth * (1 - hilar * size / count)
        ends[branch] = start + distance * length * heading
        if size == 1:
            continue
        scatter = np.zeros((3, 3))
        for i in range(first, last):
            offset = cloud[i] - ends[branch]
            offset -= (offset * heading).sum() * heading
            for a in range(3):
                for b in range(3):
                    scatter[a, b] += offset[a] * offset[b]
        axis = np.array(
            [chances[branch] - 0.5, chances[branch + count] - 0.5, chances[branch - count] - 0.5]
        )
        for _ in range(3):  # towards the direction of the largest scatter
            turned = np.zeros(3)
            for a in range(3):
                for b in range(3):
                    turned[a] += scatter[a, b] * axis[b]
            axis = turned / (np.sqrt((turned * turned).sum()) + 1e-12)
        for i in range(first, last):
            keys[i] = ((cloud[i] - ends[branch]) * axis).sum()
        order = np.argsort(keys[first:last], kind="mergesort")
        cloud[first:last] = cloud[first:last][order]
        cut = int(np.rint(size * (least + spread * chances[branch + 2 * count])))
        cut = first + min(max(cut, 1), size - 1)
        pending[n_pending, 0], pending[n_pending, 1] = first, cut
        pending[n_pending + 1, 0], pending[n_pending + 1, 1] = cut, last
        pending[n_pending, 2] = pending[n_pending + 1, 2] = branch
        n_pending += 2
    n = n_branches
    return starts[:n], ends[:n], parents[:n], twigs[:n]
