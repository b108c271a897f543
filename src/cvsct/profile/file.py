"""Files of profiles: safetensors, with all that is no array as JSON in their header.

docs/reference/profiles.md is the format's page. A reader believes nothing: the size is bounded
before anything is read, every name, type, shape and range is checked, and nothing is ever executed.
The hash finds damage; whoever can write a profile can write its hash too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cvsct.core.errors import ProfileError, one_line
from cvsct.core.files import canonical_json, write_atomic
from cvsct.core.moments import Moments
from cvsct.core.platform import read_regular_file
from cvsct.core.volume import Acquisition
from cvsct.guard.side_sums import GuardSums
from cvsct.methods.spectrum.texture import Texture, TextureLayout, empty_texture
from cvsct.profile.profile import AcquisitionGroup, ScannerProfile

FORMAT = 1
SUFFIX = ".profile"
HEADER_KEY = "cvsct_profile"
MAX_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
MAX_FREQUENCIES = 200
"""Most frequencies: up to 5 cycles/mm, pixels of .14 mm."""

ROUNDING = 1e-6
"""Relative rounding that sums may carry."""

LEAST_SQUARE = 1e-7
"""Sum of squares of a covariate below which it is rounding: of one patch less its own mean."""

VALUE_RANGES = {"guard_tissue": (0.0, 1.0), "guard_noise": (-100.0, 200.0),
                "fat_mode": (-200.0, 200.0), "soft_mode": (-200.0, 200.0)}  # fmt: skip
LOG_POWER_RANGE = (-30.0, 60.0)
"""Range of the mean value of sums, by name; of all others, which sum log power or a load."""

MOST_COVARIATE, MOST_COUNT = 1e3, 1e9
"""Largest root mean square of a covariate or value, and largest count."""

LEAST_PIXEL_MM, MAX_LENGTH_MM = 0.05, 100.0

Text = Field(max_length=200)


class _Group(BaseModel):
    """One acquisition in the header."""

    model_config = ConfigDict(extra="forbid", strict=True)

    manufacturer: str = Text
    model: str = Text
    kernel: str = Text
    kvp: float = Field(ge=0, le=1000)
    n_patients: int = Field(ge=1, le=10**7)
    n_series: int = Field(ge=1, le=10**7)
    n_slices: int = Field(ge=1, le=10**9)


class _About(BaseModel):
    """All of a profile that is no array."""

    model_config = ConfigDict(extra="forbid")

    groups: list[_Group] = Field(min_length=1, max_length=1000)
    pixel_mm: tuple[float, float]
    thickness_mm: tuple[float, float]
    n_patients: int = Field(ge=1, le=10**7)
    few_patients: bool


def write_profile(profile: ScannerProfile, path: Path) -> ScannerProfile:
    """Write a profile to a file, which is replaced.

    Returns:
        The profile with its hash.

    Raises:
        ProfileError: if it would not be read again, as of pixels finer than any scanner's.
    """
    content, digest = profile_bytes(profile, path)
    write_atomic(path, content)
    return replace(profile, sha256=digest)


def profile_bytes(profile: ScannerProfile, path: Path) -> tuple[bytes, str]:
    """Content of a profile's file, and its hash.

    Args:
        path: what errors name.

    Raises:
        ProfileError: as `write_profile`.
    """
    text, arrays = _contents(profile)
    _profile(path, _About.model_validate(json.loads(text)), arrays)
    digest = _digest(text, arrays)
    header = canonical_json({"format": FORMAT, "about": text, "sha256": digest})
    return save(arrays, metadata={HEADER_KEY: header}), digest


def with_digest(profile: ScannerProfile) -> ScannerProfile:
    """The profile with the hash that its file would have."""
    return profile if profile.sha256 else replace(profile, sha256=_digest(*_contents(profile)))


def _contents(profile: ScannerProfile) -> tuple[str, dict[str, np.ndarray]]:
    """All of a profile that is no array, as text, and its arrays."""
    about = {
        "groups": [
            {**asdict(group.acquisition), "n_patients": group.n_patients,
             "n_series": group.n_series, "n_slices": group.n_slices}
            for group in profile.groups
        ],
        "pixel_mm": profile.pixel_mm,
        "thickness_mm": profile.thickness_mm,
        "n_patients": profile.n_patients,
        "few_patients": profile.few_patients,
    }  # fmt: skip
    arrays = {}
    for name, part in profile.moments().items():
        down, across = np.triu_indices(part.sums.shape[-1])
        arrays[f"{name}.sums"] = np.ascontiguousarray(part.sums[:, :, down, across])
        arrays[f"{name}.patients"] = np.ascontiguousarray(part.patients)
    return canonical_json(about), arrays


def read_profile(path: Path) -> ScannerProfile:
    """Read a profile from a file after checking all of it.

    Raises:
        ProfileError: if there is none, it is damaged, of another version, or nothing that scans of
            a scanner could sum up to.
    """
    return parse_profile(_read(path), path)


def parse_profile(content: bytes, path: Path) -> ScannerProfile:
    """A profile from the content of its file.

    Args:
        path: what errors name.

    Raises:
        ProfileError: as `read_profile`.
    """
    try:
        header = _header(path, content)
        version = one_line(str(header["format"]))[:20]
        if version != str(FORMAT):
            raise ProfileError(
                f"{path}: profile format {version}, this version reads {FORMAT}; measure it again "
                "or install the matching cvsct"
            )
        arrays = load(content)
        text = str(header["about"])
        if _digest(text, arrays) != header.get("sha256"):
            raise ProfileError(
                f"{path}: does not match its hash; it was altered or damaged, copy it again"
            )
        about = _About.model_validate(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError, ValidationError):
        raise ProfileError(
            f"{path}: no readable profile; give a file that `cvsct profile` wrote"
        ) from None
    return replace(_profile(path, about, arrays), sha256=header["sha256"])


def is_profile(path: Path) -> bool:
    """Whether a path names a profile, by its ending."""
    return path.suffix == SUFFIX


def _read(path: Path) -> bytes:
    """Content of a regular file of bounded size.

    Raises:
        ProfileError: if it is none.
    """
    try:
        return read_regular_file(path, MAX_BYTES)
    except FileNotFoundError:
        raise ProfileError(f"{path}: no such profile") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ProfileError(
                f"{path}: {error.strerror}, no profile has more than {MAX_BYTES}"
            ) from None
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from None


def _header(path: Path, content: bytes) -> Mapping[str, Any]:
    """All that is no array, from the metadata of a safetensors file.

    Raises:
        ProfileError, ValueError, KeyError: if there is none.
    """
    (length,) = struct.unpack("<Q", content[:8]) if len(content) >= 8 else (0,)
    if not 0 < length <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise ProfileError(f"{path}: no readable profile; give a file that `cvsct profile` wrote")
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][HEADER_KEY])
    if not isinstance(header, dict):
        raise TypeError("the header is no object")
    return header


def _digest(about: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _profile(path: Path, about: _About, arrays: Mapping[str, np.ndarray]) -> ScannerProfile:
    """Profile of checked values.

    Raises:
        ProfileError: if an array is missing, of another kind, or nothing that scans sum up to.
    """
    n = arrays["body.sums"].shape[1] if _has_axes(arrays.get("body.sums"), 3) else 0
    if not 2 <= n <= MAX_FREQUENCIES:
        raise ProfileError(f"{path}: {n} frequencies, expected 2 to {MAX_FREQUENCIES}")
    empty = ScannerProfile(
        texture=empty_texture(TextureLayout(), n),
        guard=GuardSums.nothing(),
        groups=tuple(
            AcquisitionGroup(
                Acquisition(
                    one_line(g.manufacturer), one_line(g.model), one_line(g.kernel), g.kvp
                ),
                g.n_patients, g.n_series, g.n_slices,
            )
            for g in about.groups
        ),
        pixel_mm=about.pixel_mm,
        thickness_mm=about.thickness_mm,
        n_patients=about.n_patients,
        few_patients=about.few_patients,
    )  # fmt: skip
    for what, (low, high), least in (
        ("pixels", about.pixel_mm, LEAST_PIXEL_MM), ("slices", about.thickness_mm, 0.0),
    ):  # fmt: skip
        if not least <= low <= high < MAX_LENGTH_MM:
            raise ProfileError(
                f"{path}: {what} of {low:g} to {high:g} mm, expected {least:g} to {MAX_LENGTH_MM:g}"
            )
    expected = empty.moments()
    names = {f"{name}.{kind}" for name in expected for kind in ("sums", "patients")}
    if set(arrays) != names:
        different = sorted(names.symmetric_difference(arrays))
        raise ProfileError(
            f"{path}: lacks or does not know {len(different)} arrays, such as "
            f"{one_line(different[0])[:60]}; measure it again"
        )
    parts = {
        name: _moments(path, name, part, arrays[f"{name}.sums"], arrays[f"{name}.patients"])
        for name, part in expected.items()
    }
    if any((part.patients > about.n_patients).any() for part in parts.values()):
        raise ProfileError(f"{path}: sums of more patients than it says it holds")
    guard = GuardSums(parts.pop("guard_noise"), parts.pop("guard_tissue"))
    profile = replace(empty, texture=Texture(layout=TextureLayout(), **parts), guard=guard)
    return replace(profile, few_patients=profile.holds_few)


def _has_axes(array: np.ndarray | None, axes: int) -> bool:
    return array is not None and array.ndim == axes


def _moments(
    path: Path, name: str, like: Moments, packed: np.ndarray, patients: np.ndarray
) -> Moments:
    """Moments of an array of sums, after checking that items could sum up to it.

    Raises:
        ProfileError: if they could not.
    """
    strata, n, terms, _ = like.sums.shape
    shape = strata, n, terms * (terms + 1) // 2
    if packed.dtype != np.float64 or packed.shape != shape:
        raise ProfileError(
            f"{path}: {name} is {packed.dtype} of shape {packed.shape}, expected float64 of {shape}"
        )
    if patients.dtype != np.int64 or patients.shape != (strata, n):
        raise ProfileError(f"{path}: the patients of {name} are no whole numbers of that shape")
    sums = np.zeros_like(like.sums)
    down, across = np.triu_indices(terms)
    sums[:, :, down, across] = sums[:, :, across, down] = packed
    counts = sums[:, :, 0, 0]
    sound = np.isfinite(packed).all()
    sound = sound and (patients >= 0).all() and bool((patients <= counts + ROUNDING).all())
    sound = sound and bool(((patients > 0) == (counts > 0)).all())
    if not (sound and _possible(sums, name)):
        raise ProfileError(f"{path}: {name} holds sums that no scans have; measure it again")
    return Moments(like.names, sums, patients, like.by_patient)


def _possible(sums: Float[np.ndarray, "strata n terms terms"], name: str) -> bool:
    """Whether items could have these sums of products: counts, means and no negative variance."""
    held = sums[sums[:, :, 0, 0] > 0]
    if sums[sums[:, :, 0, 0] <= 0].any():
        return False
    counts = held[:, 0, 0]
    if (np.abs(counts - np.round(counts)) > ROUNDING * (1 + counts)).any():
        return False
    squares = np.diagonal(held, axis1=1, axis2=2) / counts[:, None]
    if (counts > MOST_COUNT).any() or (squares < 0).any() or (squares > MOST_COVARIATE**2).any():
        return False
    scale = np.sqrt(squares * counts[:, None] + LEAST_SQUARE)
    alike = held / scale[:, :, None] / scale[:, None, :]
    if len(held) and np.linalg.eigvalsh(alike).min() < -ROUNDING:
        return False
    low, high = VALUE_RANGES.get(name, LOG_POWER_RANGE)
    mean = held[:, 0, -1] / counts
    return bool(((mean >= low) & (mean <= high)).all())
