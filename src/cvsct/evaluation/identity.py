"""Identity of an evaluation: when, by which command, of which model and of which scans.

It holds technical attributes and pseudonyms, and no name, number or path that could identify a
patient: the report may be signed, printed and sent.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydicom import Dataset

from cvsct import __version__
from cvsct.core import platform
from cvsct.core.errors import CvsctError
from cvsct.core.sides import SIDES
from cvsct.core.volume import CTVolume
from cvsct.evaluation.features.identity import pseudonym, pseudonym_salt
from cvsct.io.dicom.header import number

SALT_FILE = "pseudonyms.salt"
"""Key of pseudonyms in the user's cache folder: a patient has one in all reports of a user."""


@dataclass(frozen=True)
class Range:
    """Lowest and highest value of an attribute over the slices of a side."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Range | None:
        """Range of the values that are known, finite and above 0; None without any."""
        known = [float(value) for value in values if value and math.isfinite(value) and value > 0]
        return cls(min(known), max(known)) if known else None

    def text(self, spec: str = ".4g") -> str:
        """One number where both ends read the same, else both."""
        low, high = format(self.low, spec), format(self.high, spec)
        return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class SideIdentity:
    """Scans of one side of an evaluation.

    Args:
        scanners: acquiring scanner, kernel and tube voltage.
        n_series: number of series.
        n_slices: number of slices in all.
        thickness_mm: Slice Thickness (0018,0050).
        spacing_mm: distance between slices.
        pixel_mm: Pixel Spacing (0028,0030).
        exposure_mas: Exposure (0018,1152) in mAs, over the slices.
        ctdi_vol_mgy: CTDIvol (0018,9345) in mGy, over the slices.
        patients: pseudonyms of the patients; a series of an unknown patient has none.
    """

    scanners: str
    n_series: int
    n_slices: int
    thickness_mm: Range | None
    spacing_mm: Range | None
    pixel_mm: Range | None
    exposure_mas: Range | None
    ctdi_vol_mgy: Range | None
    patients: tuple[str, ...]


@dataclass(frozen=True)
class ModelIdentity:
    """Model that harmonized the scans, from the manifest of `cvsct harmonize`.

    Args:
        name: name of its folder; empty if unknown.
        method: its method; empty if unknown.
        sha256: hash of its files; empty if unknown.
        reverse: whether it was applied from its target to its source.
        trained_on: its training scans of both domains, as text; empty if unknown.
        maps_to: scanners whose images it imitates, with their kernels, as text; empty if unknown.
    """

    name: str
    method: str
    sha256: str
    reverse: bool
    trained_on: tuple[str, ...]
    maps_to: str = ""


@dataclass(frozen=True)
class Identity:
    """Identity of an evaluation.

    Args:
        created: time of its start, in UTC and ISO 8601.
        command: the command line that repeats it, without paths.
        version: version of this program.
        model: the model; None where no manifest tells it.
        sides: scans of each side.
    """

    created: str
    command: str
    version: str
    model: ModelIdentity | None
    sides: Mapping[str, SideIdentity]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.json`."""
        record = asdict(self)
        if self.model:
            record["model"]["trained_on"] = list(self.model.trained_on)
        for side in record["sides"].values():
            side["patients"] = list(side["patients"])
        return record


def identity_of(
    scans: Mapping[str, Sequence[CTVolume]],
    scanners: Mapping[str, str],
    manifest: Mapping[str, Any],
    command: str,
    started: float,
    salt: bytes,
) -> Identity:
    """Collect the identity of an evaluation.

    Args:
        scans: the scans of each side.
        scanners: acquiring scanners of each side, where they are known.
        manifest: manifest of `cvsct harmonize`; empty where there is none.
        command: the command line.
        started: time of the start, in seconds since 1970.
        salt: key of the pseudonyms.
    """
    return Identity(
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        command=command,
        version=__version__,
        model=_model(manifest),
        sides={side: _side(scans[side], scanners.get(side, ""), salt) for side in SIDES
               if side in scans},
    )  # fmt: skip


def report_salt(kept: bool = True) -> bytes:
    """Key of the pseudonyms: the user's own, or one for this report where none can be kept.

    Args:
        kept: whether the user's cache folder may be used.
    """
    try:
        if not kept:
            return secrets.token_bytes(32)
        folder = platform.cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        return pseudonym_salt(folder / SALT_FILE)
    except (OSError, CvsctError):
        return secrets.token_bytes(32)


def _model(manifest: Mapping[str, Any]) -> ModelIdentity | None:
    config, figures = manifest.get("config"), manifest.get("figures")
    if not isinstance(config, Mapping) or not manifest.get("model_sha256"):
        return None
    about = figures.get("model") if isinstance(figures, Mapping) else None
    about = about if isinstance(about, Mapping) else {}
    reverse = bool(config.get("reverse", False))
    goal = about.get("source" if reverse else "target")
    return ModelIdentity(
        name=str(about.get("name", "")),
        method=str(config.get("method", "")),
        sha256=str(manifest["model_sha256"]),
        reverse=reverse,
        trained_on=tuple(
            _domain(name, about[name])
            for name in ("source", "target")
            if isinstance(about.get(name), Mapping)
        ),
        maps_to=_scanners(goal) if isinstance(goal, Mapping) else "",
    )


def _domain(name: str, domain: Mapping[str, Any]) -> str:
    """One side of a model's training, as text."""
    counts = f"{domain.get('n_series', '?')} series, {domain.get('n_slices', '?')} slices"
    return f"{name}: {_scanners(domain) or 'unknown scanner'} ({counts})"


def _scanners(domain: Mapping[str, Any]) -> str:
    """Scanners of one side of a model's training; empty if unknown."""
    scanners = domain.get("scanners")
    return "; ".join(map(str, scanners)) if isinstance(scanners, list) else ""


def _side(volumes: Sequence[CTVolume], scanners: str, salt: bytes) -> SideIdentity:
    headers = [header for volume in volumes for header in volume.headers]
    patients = dict.fromkeys(volume.patient for volume in volumes if volume.patient)
    geometries = [volume.geometry for volume in volumes]
    return SideIdentity(
        scanners=scanners or "; ".join(sorted({str(volume.acquisition) for volume in volumes})),
        n_series=len(volumes),
        n_slices=sum(len(volume.hu) for volume in volumes),
        thickness_mm=Range.of(geometry.thickness_mm for geometry in geometries),
        spacing_mm=Range.of(abs(geometry.spacing_mm) for geometry in geometries),
        pixel_mm=Range.of(mm for geometry in geometries for mm in geometry.pixel_mm),
        exposure_mas=Range.of(map(_exposure_mas, headers)),
        ctdi_vol_mgy=Range.of(number(header, "CTDIvol") for header in headers),
        patients=tuple(pseudonym(patient, salt) for patient in patients),
    )


def _exposure_mas(header: Dataset) -> float | None:
    """Exposure of a slice in mAs, from the attribute of any of its units; None if unknown."""
    micro = number(header, "ExposureInuAs")
    values = [number(header, "Exposure"), number(header, "ExposureInmAs"), micro and micro / 1000]
    return next((value for value in values if value and value > 0), None)
