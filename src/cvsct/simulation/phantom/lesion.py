"""A lung lesion with a texture of its own, for studies of what radiomics can tell.

Its surface is star-shaped about its centre: radius R(n) = r (1 + sum_k a_k cos(w_k . n + p_k)) in
direction n, lobulated by low waves. Its density is that of soft tissue times one plus a Gaussian
random field with correlation exp(-d^2 / (2 grain^2)), made of plane waves (random Fourier
features: Rahimi and Recht, NIPS 2007), so that it can be asked for at any point. What distinguishes
one lesion from another is in `LesionTraits`; all parameters are chosen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.seeding import random_stream
from cvsct.simulation.benchmark import LesionTraits

LOBULATION = 0.06
"""Standard deviation of the radius over the mean radius."""
N_LOBES = 12
LOBE_WAVES = 2.5
"""Typical waves of the surface, in radians a unit of direction."""
N_WAVES = 128
"""Plane waves of the texture: the kurtosis of their sum is 3 within 0.4 %."""
CONTOUR_POINTS = 120
"""Vertices of a drawn contour."""
RADIUS_LIMITS = 0.75, 1.3
"""Least and greatest radius over the mean radius."""


@dataclass(frozen=True)
class Lesion:
    """A lesion in place.

    Args:
        centre_mm: x, y, z in scanner coordinates.
        seed: of its shape and texture.
    """

    centre_mm: tuple[float, float, float]
    traits: LesionTraits
    seed: int

    def record(self) -> dict[str, Any]:
        """All values as plain data, from which `from_record` makes the same lesion."""
        return {**asdict(self), "centre_mm": list(self.centre_mm)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Lesion:
        """The lesion that `record` describes."""
        x, y, z = record["centre_mm"]
        return cls((x, y, z), LesionTraits(**record["traits"]), record["seed"])

    @property
    def reach_mm(self) -> float:
        """Greatest distance of its surface from its centre."""
        return RADIUS_LIMITS[1] * self.traits.diameter_mm / 2

    def distance_mm(
        self,
        x_mm: Float[np.ndarray, "*#shape"],
        y_mm: Float[np.ndarray, "*#shape"],
        z_mm: Float[np.ndarray, "*#shape"],
    ) -> Float[np.ndarray, "*shape"]:
        """Radial distance of points from the surface, negative inside."""
        offset = np.stack(np.broadcast_arrays(x_mm, y_mm, z_mm), axis=-1) - self.centre_mm
        radius = np.linalg.norm(offset, axis=-1)
        directions = offset / np.maximum(radius, 1e-9)[..., None]
        return np.asarray(radius - self._surface_mm(directions))

    def _surface_mm(self, directions: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape"]:
        waves, phases = self._lobes
        lobes = np.cos(directions @ waves.T + phases).sum(axis=-1) * np.sqrt(2 / N_LOBES)
        share = np.clip(1 + LOBULATION * lobes, *RADIUS_LIMITS)
        return np.asarray(self.traits.diameter_mm / 2 * share)

    def field(
        self,
        x_mm: Float[np.ndarray, "*#shape"],
        y_mm: Float[np.ndarray, "*#shape"],
        z_mm: Float[np.ndarray, "*#shape"],
    ) -> Float[np.ndarray, "*shape"]:
        """The random field of the texture, of mean 0 and variance 1 over seeds."""
        waves, phases = self._texture
        points = np.stack(np.broadcast_arrays(x_mm, y_mm, z_mm), axis=-1)
        return np.asarray(np.cos(points @ waves.T + phases).sum(axis=-1) * np.sqrt(2 / N_WAVES))

    def contour_mm(self, z_mm: float) -> Float[np.ndarray, "vertices 2"] | None:
        """Outline in the plane at one z, as x and y; None where the plane misses the lesion.

        The outline is taken about the axis through the centre, along rays from outside, so that it
        is the outer one where lobes overhang.
        """
        angle = np.arange(CONTOUR_POINTS) * 2 * np.pi / CONTOUR_POINTS
        radius = np.arange(0.0, self.reach_mm + 0.1, 0.05)[:, None]
        x = self.centre_mm[0] + radius * np.cos(angle)
        y = self.centre_mm[1] + radius * np.sin(angle)
        inside = self.distance_mm(x, y, np.full_like(x, z_mm)) < 0
        if not inside.any(axis=0).all():
            return None
        last = len(radius) - 1 - inside[::-1].argmax(axis=0)
        vertices = np.arange(CONTOUR_POINTS)
        return np.stack((x[last, vertices], y[last, vertices]), axis=1)

    def mask(
        self,
        x_mm: Float[np.ndarray, " columns"],
        y_mm: Float[np.ndarray, " rows"],
        z_mm: Float[np.ndarray, " slices"],
    ) -> Bool[np.ndarray, "slices rows columns"]:
        """Voxels whose centres lie inside."""
        z, y, x = np.ix_(z_mm, y_mm, x_mm)
        near = [
            np.flatnonzero(np.abs(values.ravel() - middle) < self.reach_mm)
            for values, middle in ((z, self.centre_mm[2]), (y, self.centre_mm[1]),
                                   (x, self.centre_mm[0]))
        ]  # fmt: skip
        mask = np.zeros((len(z_mm), len(y_mm), len(x_mm)), dtype=bool)
        box = np.ix_(*near)
        zs, ys, xs = (values.ravel()[index] for values, index in zip((z, y, x), near, strict=True))
        mask[box] = self.distance_mm(*np.meshgrid(zs, ys, xs, indexing="ij")[::-1]) < 0
        return mask

    @cached_property
    def _lobes(self) -> tuple[Float[np.ndarray, "lobes 3"], Float[np.ndarray, " lobes"]]:
        rng = random_stream(self.seed, "lesion surface")
        waves = rng.standard_normal((N_LOBES, 3)) * LOBE_WAVES
        return waves, rng.uniform(0, 2 * np.pi, N_LOBES)

    @cached_property
    def _texture(self) -> tuple[Float[np.ndarray, "waves 3"], Float[np.ndarray, " waves"]]:
        rng = random_stream(self.seed, "lesion texture")
        waves = rng.standard_normal((N_WAVES, 3)) / self.traits.grain_mm
        return waves, rng.uniform(0, 2 * np.pi, N_WAVES)
