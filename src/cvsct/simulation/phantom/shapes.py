"""Implicit shapes: signed distances in mm, negative inside, and how they are stored.

Smooth shapes are sampled once on a coarse lattice (`Lattice`, `Field`) and read through a cubic
B-spline, which rounds them as tissue is; thin ones are tubes (`Tubes`, `Ovals`) and stay exact.
A shape is written in body coordinates, those of a body of average size; `Posture` leads from them
to the scanner's (DICOM LPS: x to the patient's left, y to the back, z to the head).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from cvsct.simulation.phantom import compiled_geometry

Volume = Float32[np.ndarray, "slices rows columns"]
Nodes = Float32[np.ndarray, "nodes nodes nodes"]
Number = float | int
Array = Float[np.ndarray, "..."]


@dataclass(frozen=True)
class Posture:
    """Size and position of a body: the map between body and scanner coordinates.

    Args:
        scale: size along x, y and z relative to the average body.
        roll_rad: rotation about z.
        bend_mm: how far the middle of the trunk lies to the left and to the back of its ends.
        shift_mm: displacement along x and y.
    """

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    roll_rad: float = 0.0
    bend_mm: tuple[float, float] = (0.0, 0.0)
    shift_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def in_plane(self) -> float:
        """Mean scale in the axial plane."""
        return float(np.sqrt(self.scale[0] * self.scale[1]))

    def _bend(self, z: Array) -> Array:
        bend: Array = 1 - np.clip((z + 50) / 140, -1.3, 1.3) ** 2
        return bend

    def to_body(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Body coordinates of scanner coordinates."""
        zb = z / self.scale[2]
        xs = x - self.shift_mm[0] - self.bend_mm[0] * self._bend(zb)
        ys = y - self.shift_mm[1] - self.bend_mm[1] * self._bend(zb)
        cos, sin = float(np.cos(self.roll_rad)), float(np.sin(self.roll_rad))
        return (cos * xs + sin * ys) / self.scale[0], (cos * ys - sin * xs) / self.scale[1], zb

    def to_scanner(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
        """Scanner coordinates of points given in body coordinates."""
        x, y, zb = (points * np.array(self.scale)).T
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        bend = self._bend(points[:, 2])
        return np.stack(
            (
                cos * x - sin * y + self.shift_mm[0] + self.bend_mm[0] * bend,
                sin * x + cos * y + self.shift_mm[1] + self.bend_mm[1] * bend,
                zb,
            ),
            axis=1,
        )


@dataclass(frozen=True)
class Field:
    """A smooth function of space: B-spline nodes, in scanner coordinates.

    Args:
        nodes: values at the nodes, [z, y, x].
        origin_mm: x, y, z of the first node.
        step_mm: distance of the nodes along x, y, z.
    """

    nodes: Volume
    origin_mm: tuple[float, float, float]
    step_mm: tuple[float, float, float]

    def at(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, " points"]:
        """Values at points in scanner coordinates."""
        index = (points - np.array(self.origin_mm)) / np.array(self.step_mm)
        values: Float[np.ndarray, " points"] = ndimage.map_coordinates(
            self.nodes, index.T[::-1], order=3, mode="nearest", prefilter=False
        )
        return values

    def plane(self, z_mm: float) -> Float32[np.ndarray, "rows columns"] | None:
        """The nodes' plane at one z; None outside the lattice."""
        position = (z_mm - self.origin_mm[2]) / self.step_mm[2]
        if not 0 <= position <= len(self.nodes) - 1:
            return None
        plane: Float32[np.ndarray, "rows columns"] = compiled_geometry.plane_between(
            self.nodes, position, False
        )
        return plane


@dataclass(frozen=True)
class Tubes:
    """Tapered capsules, in scanner coordinates."""

    starts: Float32[np.ndarray, "tubes 3"]
    ends: Float32[np.ndarray, "tubes 3"]
    radii: Float32[np.ndarray, "tubes 2"]

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, index: np.ndarray) -> Tubes:
        """Some of the tubes: indices or a mask."""
        return Tubes(self.starts[index], self.ends[index], self.radii[index])

    def grown(self, by_mm: float) -> Tubes:
        """The same tubes with larger radii; none falls below 0.01 mm."""
        return Tubes(self.starts, self.ends, np.maximum(self.radii + np.float32(by_mm), 0.01))

    def near(self, z_mm: float, margin_mm: float) -> Tubes:
        """The tubes that come within the margin of a plane."""
        reach = self.radii.max(axis=1) + np.float32(margin_mm)
        low = np.minimum(self.starts[:, 2], self.ends[:, 2]) - reach
        high = np.maximum(self.starts[:, 2], self.ends[:, 2]) + reach
        return self.select(np.flatnonzero((low < z_mm) & (high > z_mm)))


@dataclass(frozen=True)
class Ovals:
    """Tubes of oval section, in scanner coordinates; see `compiled_geometry.oval_distance`."""

    starts: Float32[np.ndarray, "tubes 3"]
    ends: Float32[np.ndarray, "tubes 3"]
    across: Float32[np.ndarray, "tubes 3"]
    half_mm: Float32[np.ndarray, "tubes 4"]

    def near(self, z_mm: float, margin_mm: float) -> Ovals:
        """The tubes that come within the margin of a plane."""
        reach = self.half_mm.max(axis=1) + np.float32(margin_mm)
        low = np.minimum(self.starts[:, 2], self.ends[:, 2]) - reach
        high = np.maximum(self.starts[:, 2], self.ends[:, 2]) + reach
        index = np.flatnonzero((low < z_mm) & (high > z_mm))
        return Ovals(self.starts[index], self.ends[index], self.across[index], self.half_mm[index])


def join_tubes(parts: Sequence[Tubes]) -> Tubes:
    """All tubes of several sets."""
    return Tubes(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.ends for part in parts]),
        np.concatenate([part.radii for part in parts]),
    )


def join_ovals(parts: Sequence[Ovals]) -> Ovals:
    """All oval tubes of several sets."""
    return Ovals(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.ends for part in parts]),
        np.concatenate([part.across for part in parts]),
        np.concatenate([part.half_mm for part in parts]),
    )


def smooth_path(
    knots: Float[np.ndarray, "knots values"], step_mm: float
) -> Float[np.ndarray, "points values"]:
    """A smooth curve through knots, sampled about every `step_mm`; x, y, z come first."""
    along = np.concatenate(
        [[0.0], np.cumsum(np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1))]
    )
    samples = np.linspace(0, along[-1], max(2, round(along[-1] / step_mm) + 1))
    path: Float[np.ndarray, "points values"] = PchipInterpolator(along, knots)(samples)
    return path


def chain(knots: Sequence[Sequence[Number]], posture: Posture, thickness: float = 1.0) -> Tubes:
    """A smooth tube through knots (x, y, z, radius) in body coordinates."""
    path = smooth_path(np.array(knots, dtype=float), 4.0)
    points = posture.to_scanner(path[:, :3]).astype(np.float32)
    radii = (path[:, 3] * thickness).astype(np.float32)
    return Tubes(points[:-1], points[1:], np.stack((radii[:-1], radii[1:]), axis=1))


class Lattice:
    """Regular grid on which fields are sampled, with the body coordinates of its nodes.

    Args:
        low_mm, high_mm: x, y, z of two opposite corners, in scanner coordinates.
        step_mm: distance of the nodes along x, y, z.
    """

    def __init__(
        self,
        low_mm: tuple[float, float, float],
        high_mm: tuple[float, float, float],
        step_mm: tuple[float, float, float],
        posture: Posture,
    ) -> None:
        self.origin_mm, self.step_mm, self.posture = low_mm, step_mm, posture
        axes = [
            (low + step * np.arange(int((high - low) / step) + 1)).astype(np.float32)
            for low, high, step in zip(low_mm, high_mm, step_mm, strict=True)
        ]
        self._z_mm = axes[2]
        self.off_centre_mm = np.hypot(axes[0][None, None, :], axes[1][None, :, None])
        self.shape = (len(axes[2]), len(axes[1]), len(axes[0]))
        self.x, self.y, self.z = posture.to_body(
            axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]
        )

    def field(self, values: Float[np.ndarray, "..."]) -> Field:
        """A field of values on this lattice; they broadcast to its shape."""
        nodes = np.ascontiguousarray(np.broadcast_to(values, self.shape), dtype=np.float32)
        return Field(nodes, self.origin_mm, self.step_mm)

    def random_points(
        self,
        rng: np.random.Generator,
        inside: Bool[np.ndarray, "slices rows columns"],
        jitter: float = 0.5,
    ) -> Float[np.ndarray, "points 3"]:
        """Scanner coordinates of the nodes where a mask is true, in random order.

        Args:
            jitter: largest random displacement along each axis, in steps of the lattice.
        """
        z, y, x = np.nonzero(inside)
        index = np.stack((x, y, z), axis=1)
        displaced = index + rng.uniform(-jitter, jitter, index.shape) if jitter else index
        points: Float[np.ndarray, "points 3"] = np.array(self.origin_mm) + displaced * np.array(
            self.step_mm
        )
        return points[rng.permutation(len(points))]

    def tubes(self, tubes: Tubes, margin_mm: float) -> Volume:
        """Distance from tubes, up to a margin."""
        out = np.full(self.shape, margin_mm, np.float32)
        for z, plane in zip(self._z_mm, out, strict=True):
            near = tubes.near(float(z), margin_mm)
            compiled_geometry.tube_distance(
                near.starts, near.ends, near.radii, np.float32(z), np.float32(self.origin_mm[0]),
                np.float32(self.origin_mm[1]), np.float32(self.step_mm[0]), np.float32(margin_mm),
                plane,
            )  # fmt: skip
        return out

    def resample(self, field: Field) -> Volume:
        """Another lattice's field at the nodes of this one."""
        out = np.full(self.shape, 1e3, np.float32)
        (x, y, _), (dx, dy, _) = field.origin_mm, field.step_mm
        for z, plane in zip(self._z_mm, out, strict=True):
            coarse = field.plane(float(z))
            if coarse is not None:
                compiled_geometry.refine(
                    coarse, (self.origin_mm[1] - y) / dy, self.step_mm[1] / dy,
                    (self.origin_mm[0] - x) / dx, self.step_mm[0] / dx, False, plane,
                )  # fmt: skip
        return out

    def noise(self, nodes: Nodes, cell_mm: float) -> Volume:
        """Smooth periodic noise with one node every `cell_mm`."""
        out = np.empty(self.shape, np.float32)
        for z, plane in zip(self._z_mm, out, strict=True):
            compiled_geometry.refine(
                compiled_geometry.plane_between(nodes, float(z) / cell_mm, True),
                self.origin_mm[1] / cell_mm, self.step_mm[1] / cell_mm,
                self.origin_mm[0] / cell_mm, self.step_mm[0] / cell_mm, True, plane,
            )  # fmt: skip
        return out


def noise_nodes(rng: np.random.Generator, count: int) -> Nodes:
    """Nodes of a periodic spline whose values have about unit variance."""
    gain = (151 / 315) ** -1.5  # 151/315: mean sum of squared weights along one axis
    nodes: Nodes = (rng.standard_normal((count, count, count)) * gain).astype(np.float32)
    return nodes


def scaled(lengths: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    """Three lengths times one factor."""
    return lengths[0] * by, lengths[1] * by, lengths[2] * by


def smooth_union(a: Array, b: Array, blend_mm: float) -> Array:
    """Union whose seams are filled over about `blend_mm`."""
    near = np.maximum(blend_mm - np.abs(a - b), 0)
    union: Array = np.minimum(a, b) - near * near * np.float32(0.25 / blend_mm)
    return union


def smooth_intersection(a: Array, b: Array, blend_mm: float) -> Array:
    """Intersection whose edges are rounded over about `blend_mm`."""
    intersection: Array = -smooth_union(-a, -b, blend_mm)
    return intersection


def ellipsoid(
    position: tuple[Array, Array, Array],
    centre: tuple[float, float, float],
    half_mm: tuple[float, float, float],
    long_axis: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> Array:
    """Distance from an ellipsoid, to first order; `half_mm` begins with the long axis."""
    first = np.array(long_axis, dtype=float) / np.linalg.norm(long_axis)
    up = np.array([0.0, 0.0, 1.0]) if abs(first[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    second = np.cross(up, first) / np.linalg.norm(np.cross(up, first))
    frame = np.stack((first, second, np.cross(first, second))).astype(np.float32)
    offset = [p - np.float32(c) for p, c in zip(position, centre, strict=True)]
    length: Array = np.zeros((), np.float32)
    slope: Array = np.zeros((), np.float32)
    for axis, half in zip(frame, half_mm, strict=True):
        along = sum(a * o for a, o in zip(axis, offset, strict=True)) / np.float32(half)
        length = length + along * along
        slope = slope + (along / np.float32(half)) ** 2
    length = np.sqrt(length)
    distance: Array = length * (length - 1) / np.sqrt(slope + np.float32(1e-8))
    return distance
