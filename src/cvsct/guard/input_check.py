"""Comparison of a scan with the scans of one side of a model, by headers and by pixels.

Headers are compared first, by name and by ratio; then pixels, by their descriptor
(`guard.descriptor`). Of several known descriptors the nearest counts, so that a domain may hold
several doses or kernels. Limits of pixels are learned from data left out: each descriptor is
compared with all others, and a limit is `MARGIN` times the largest distance seen, or a floor that
other patients need, if that is more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from cvsct.core.volume import ScanFacts
from cvsct.guard.descriptor import Descriptor, Distance, distance

MARGIN = 1.5


@dataclass(frozen=True)
class ScanLimits:
    """Largest distances of a scan from the scans of one side that are accepted.

    Args:
        kvp_kv: difference of the tube voltage from the nearest known, kV.
        pixel_factor, thickness_factor: pixel spacing and slice thickness beyond the known range.
        noise_db, sharpness_db, tissue_nats: of `descriptor.Distance`, magnitudes.
    """

    kvp_kv: float = 20.0
    pixel_factor: float = 1.5
    thickness_factor: float = 2.0
    noise_db: float = 9.0
    sharpness_db: float = 2.0
    tissue_nats: float = 0.8


FLOORS = ScanLimits()
"""Smallest limits that a calibration sets (docs/reference/guards.md says where they come from)."""

PIXEL_LIMITS = ("noise_db", "sharpness_db", "tissue_nats")
NAMES = ("manufacturer", "kernel", "body", *(field.name for field in fields(ScanLimits)))
"""Names of everything a scan can be refused for. The first three have no number and can only be
switched off."""


@dataclass(frozen=True)
class Headers:
    """Acquisition attributes of one side's scans; empty where no header has them."""

    manufacturers: tuple[str, ...]
    kernels: tuple[str, ...]
    kvp: tuple[float, ...]
    pixel_mm: tuple[float, float]
    thickness_mm: tuple[float, float]

    @classmethod
    def of(cls, facts: Sequence[ScanFacts]) -> Headers:
        """Distinct names and voltages; lowest and highest of lengths, 0 where unknown."""
        pixels = [round(_pixel_mm(scan), 4) for scan in facts]
        thick = [round(scan.thickness_mm, 4) for scan in facts if scan.thickness_mm] or [0.0]
        return cls(
            manufacturers=tuple(sorted({scan.acquisition.manufacturer for scan in facts} - {""})),
            kernels=tuple(sorted({scan.acquisition.kernel for scan in facts} - {""})),
            kvp=tuple(sorted({scan.acquisition.kvp for scan in facts} - {0.0})),
            pixel_mm=(min(pixels), max(pixels)),
            thickness_mm=(min(thick), max(thick)),
        )


@dataclass(frozen=True)
class SideReference:
    """Reference of one side of a model, with which scans are compared.

    Args:
        headers: acquisition attributes of its scans.
        descriptors: of several of its scans, or of blocks of slices where it has few.
        limits: largest accepted distances.
        held_out: the largest distances between one descriptor and all others; 0 where there is
            only one.
        calibrated_on: description of the slices that the descriptors are of.
    """

    headers: Headers
    descriptors: tuple[Descriptor, ...]
    limits: ScanLimits
    held_out: Distance
    calibrated_on: str

    @classmethod
    def learn(
        cls, facts: Sequence[ScanFacts], descriptors: Sequence[Descriptor], calibrated_on: str
    ) -> SideReference:
        """Learn a side and its limits, leaving out each descriptor in turn."""
        left_out = [
            nearest(descriptor, [*descriptors[:i], *descriptors[i + 1 :]])
            for i, descriptor in enumerate(descriptors)
            if len(descriptors) > 1
        ]
        largest = Distance(
            **{
                name: _largest(getattr(measured, name) for measured in left_out)
                for name in PIXEL_LIMITS
            }
        )
        learned = {
            name: max(getattr(FLOORS, name), round(MARGIN * getattr(largest, name), 2))
            for name in PIXEL_LIMITS
        }
        limits = replace(FLOORS, **learned)
        return cls(Headers.of(facts), tuple(descriptors), limits, largest, calibrated_on)

    def to_json(self) -> dict[str, Any]:
        """Everything but the limits as JSON values, for the guard section of a model."""
        return {
            "headers": {name: list(part) for name, part in asdict(self.headers).items()},
            "looks": [descriptor.to_json() for descriptor in self.descriptors],
            "held_out": {k: round(v, 3) for k, v in asdict(self.held_out).items()},
            "calibrated_on": self.calibrated_on,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], limits: Mapping[str, float]) -> SideReference:
        """Reference from the values that `to_json` wrote, and its limits."""
        headers = {name: tuple(part) for name, part in value["headers"].items()}
        return cls(
            headers=Headers(**headers),
            descriptors=tuple(map(Descriptor.from_json, value["looks"])),
            limits=ScanLimits(**limits),
            held_out=Distance(**value["held_out"]),
            calibrated_on=value["calibrated_on"],
        )


def nearest(descriptor: Descriptor, known: Sequence[Descriptor]) -> Distance:
    """Smallest distance to any known descriptor, for each measure by itself; NaN where unknown."""
    distances = [distance(descriptor, other) for other in known]
    return Distance(
        **{
            name: _smallest(getattr(measured, name) for measured in distances)
            for name in PIXEL_LIMITS
        }
    )


@dataclass(frozen=True)
class ScanComparison:
    """Comparison of a scan with a side by one attribute or measure.

    Args:
        name: one of `NAMES`.
        text: the scan's value beside the known ones, for messages.
        exceeded: whether the scan is too far from the side.
        value, limit: the measured number and its limit; 0 for attributes without a number.
    """

    name: str
    text: str
    exceeded: bool
    value: float = 0.0
    limit: float = 0.0

    @property
    def override(self) -> str:
        """Option that accepts this scan: the next round number as limit, or `off`."""
        return f"--guard {self.name}={round_up(self.value) if self.limit else 'off'}"


def round_up(value: float) -> str:
    """Round a positive value up to two significant digits, as text."""
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return f"{np.ceil(value / step) * step:.6g}"


def compare_headers(
    facts: ScanFacts, side: SideReference, limits: ScanLimits
) -> list[ScanComparison]:
    """Compare a scan with a side by headers; attributes that either lacks are left out."""
    known, acquisition = side.headers, facts.acquisition
    comparisons = []
    if acquisition.manufacturer and known.manufacturers:
        other = vendor(acquisition.manufacturer) not in set(map(vendor, known.manufacturers))
        comparisons.append(
            _compare_name("manufacturer", acquisition.manufacturer, known.manufacturers, other)
        )
    if acquisition.kernel and known.kernels:
        other = _normalized_kernel(acquisition.kernel) not in set(
            map(_normalized_kernel, known.kernels)
        )
        comparisons.append(_compare_name("kernel", acquisition.kernel, known.kernels, other))
    if acquisition.kvp and known.kvp:
        distance_kv = min(abs(acquisition.kvp - kvp) for kvp in known.kvp)
        text = f"tube voltage {acquisition.kvp:g} kV, {distance_kv:g} from the nearest known"
        comparisons.append(_compare_number("kvp_kv", text, distance_kv, limits))
    lengths = (
        ("pixel_factor", "pixels of", _pixel_mm(facts), known.pixel_mm),
        ("thickness_factor", "slices of", facts.thickness_mm, known.thickness_mm),
    )
    for name, quantity, length, (low, high) in lengths:
        if length and low:
            factor = max(low / length, length / high, 1.0)
            text = f"{quantity} {length:.3g} mm, {factor:.2g} times off {_span(low, high)}"
            comparisons.append(_compare_number(name, text, factor, limits))
    return comparisons


def compare_descriptor(
    descriptor: Descriptor, side: SideReference, limits: ScanLimits
) -> list[ScanComparison]:
    """Compare a scan with a side by pixels; measures unknown on either side are left out."""
    if not descriptor.knows_tissue:
        if not any(known.knows_tissue for known in side.descriptors):
            return []
        text = "hardly any tissue is there: no patient, or no Hounsfield units"
        return [ScanComparison("body", text, exceeded=True)]
    measured = nearest(descriptor, side.descriptors)
    texts = {
        "noise_db": "level of noise {:+.1f} dB from the nearest known",
        "sharpness_db": "sharpness of noise {:.1f} dB from the nearest known",
        "tissue_nats": "CT numbers of tissue {:.2f} nats from the nearest known",
    }
    return [
        _compare_number(
            name,
            texts[name].format(getattr(measured, name)),
            abs(getattr(measured, name)),
            limits,
        )
        for name in PIXEL_LIMITS
        if np.isfinite(getattr(measured, name))
    ]


def names_not_compared(comparisons: Iterable[ScanComparison]) -> tuple[str, ...]:
    """Names by which a scan could not be compared, in the order of `NAMES`."""
    compared = {comparison.name for comparison in comparisons}
    return tuple(name for name in NAMES if name not in compared and name != "body")


def _compare_name(name: str, value: str, known: Sequence[str], other: bool) -> ScanComparison:
    printable = "".join(char if char.isprintable() else "?" for char in value)[:64]
    return ScanComparison(name, f"{name} {printable}, known {' and '.join(known)}", other)


def _compare_number(name: str, text: str, value: float, limits: ScanLimits) -> ScanComparison:
    limit = getattr(limits, name)
    return ScanComparison(name, f"{text} (limit {limit:g})", value > limit, value, limit)


def vendor(manufacturer: str) -> str:
    """Vendor of a scanner in lower case: `GE MEDICAL SYSTEMS` and `GE Healthcare` are one."""
    return " ".join(manufacturer.casefold().split()[:1])


def _normalized_kernel(kernel: str) -> str:
    return "".join(kernel.casefold().split())


def _pixel_mm(facts: ScanFacts) -> float:
    rows_mm, columns_mm = facts.pixel_mm
    return float(np.sqrt(rows_mm * columns_mm))


def _span(low: float, high: float) -> str:
    return f"{low:g} mm" if low == high else f"{low:g} to {high:g} mm"


def _largest(values: Iterable[float]) -> float:
    return max((abs(value) for value in values if np.isfinite(value)), default=0.0)


def _smallest(values: Iterable[float]) -> float:
    return min((value for value in values if np.isfinite(value)), key=abs, default=float("nan"))
