"""What the scans of one side of a model are like, and whether another scan is like them.

Headers are compared first, by name and by ratio; then what pixels look like (`guard.descriptor`).
Of several known descriptors the nearest counts, so that a domain may hold several doses or
kernels. Limits of pixels are learned from data left out: each descriptor is compared with all
others, and a limit is `MARGIN` times the largest distance seen, or a floor that other patients
need, if that is more.
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
    """How far a scan may be from those a model learned from.

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
"""Limits that no calibration goes below (docs/guards.md says where they come from)."""

PIXEL_LIMITS = ("noise_db", "sharpness_db", "tissue_nats")
NAMES = ("manufacturer", "kernel", "body", *(each.name for each in fields(ScanLimits)))
"""Everything a scan can be refused for. The first three have no number: they hold or are off."""


@dataclass(frozen=True)
class Headers:
    """What the headers of a side's scans say; empty where none says it."""

    manufacturers: tuple[str, ...]
    kernels: tuple[str, ...]
    kvp: tuple[float, ...]
    pixel_mm: tuple[float, float]
    thickness_mm: tuple[float, float]

    @classmethod
    def of(cls, facts: Sequence[ScanFacts]) -> Headers:
        """Distinct names and voltages; lowest and highest of lengths, 0 where unknown."""
        made = [each.acquisition for each in facts]
        pixels = [round(_pixel_mm(each), 4) for each in facts]
        thick = [round(each.thickness_mm, 4) for each in facts if each.thickness_mm] or [0.0]
        return cls(
            manufacturers=tuple(sorted({each.manufacturer for each in made} - {""})),
            kernels=tuple(sorted({each.kernel for each in made} - {""})),
            kvp=tuple(sorted({each.kvp for each in made} - {0.0})),
            pixel_mm=(min(pixels), max(pixels)),
            thickness_mm=(min(thick), max(thick)),
        )


@dataclass(frozen=True)
class Side:
    """One side of a model, as far as a guard knows it.

    Args:
        descriptors: of several of its scans, or of parts of the few there are.
        held_out: the largest distances between one of them and all others; 0 where there is one.
        calibrated_on: what the descriptors are of, in words.
    """

    headers: Headers
    descriptors: tuple[Descriptor, ...]
    limits: ScanLimits
    held_out: Distance
    calibrated_on: str

    @classmethod
    def learn(
        cls, facts: Sequence[ScanFacts], descriptors: Sequence[Descriptor], calibrated_on: str
    ) -> Side:
        """Set the limits by leaving out each descriptor in turn."""
        left_out = [
            nearest(descriptor, [*descriptors[:i], *descriptors[i + 1 :]])
            for i, descriptor in enumerate(descriptors)
            if len(descriptors) > 1
        ]
        largest = Distance(
            **{name: _largest(getattr(each, name) for each in left_out) for name in PIXEL_LIMITS}
        )
        learned = {
            name: max(getattr(FLOORS, name), round(MARGIN * getattr(largest, name), 2))
            for name in PIXEL_LIMITS
        }
        limits = replace(FLOORS, **learned)
        return cls(Headers.of(facts), tuple(descriptors), limits, largest, calibrated_on)

    def to_json(self) -> dict[str, Any]:
        """What is known, limits apart, as plain values."""
        return {
            "headers": {name: list(part) for name, part in asdict(self.headers).items()},
            "looks": [descriptor.to_json() for descriptor in self.descriptors],
            "held_out": {k: round(v, 3) for k, v in asdict(self.held_out).items()},
            "calibrated_on": self.calibrated_on,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], limits: Mapping[str, float]) -> Side:
        """What `to_json` gave, with its limits."""
        headers = {name: tuple(part) for name, part in value["headers"].items()}
        return cls(
            headers=Headers(**headers),
            descriptors=tuple(map(Descriptor.from_json, value["looks"])),
            limits=ScanLimits(**limits),
            held_out=Distance(**value["held_out"]),
            calibrated_on=value["calibrated_on"],
        )


def nearest(descriptor: Descriptor, known: Sequence[Descriptor]) -> Distance:
    """The distance from the nearest, for each measure by itself; NaN where unknown."""
    found = [distance(descriptor, each) for each in known]
    return Distance(
        **{name: _smallest(getattr(each, name) for each in found) for name in PIXEL_LIMITS}
    )


@dataclass(frozen=True)
class Finding:
    """One way in which a scan was compared with a side.

    Args:
        name: one of `NAMES`.
        text: what was found beside what is known.
        value, limit: where there are numbers.
        exceeded: whether the scan is too far off.
    """

    name: str
    text: str
    exceeded: bool
    value: float = 0.0
    limit: float = 0.0

    @property
    def override(self) -> str:
        """The words that let this scan pass: the next round number, or `off`."""
        return f"--guard {self.name}={above(self.value) if self.limit else 'off'}"


def above(value: float) -> str:
    """A number of two digits not below the value."""
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return f"{np.ceil(value / step) * step:.6g}"


def compare_headers(facts: ScanFacts, side: Side, limits: ScanLimits) -> list[Finding]:
    """What headers tell; what either does not say is left out."""
    known, made = side.headers, facts.acquisition
    found = []
    if made.manufacturer and known.manufacturers:
        other = vendor(made.manufacturer) not in set(map(vendor, known.manufacturers))
        found.append(_named("manufacturer", made.manufacturer, known.manufacturers, other))
    if made.kernel and known.kernels:
        other = _plain(made.kernel) not in set(map(_plain, known.kernels))
        found.append(_named("kernel", made.kernel, known.kernels, other))
    if made.kvp and known.kvp:
        off = min(abs(made.kvp - each) for each in known.kvp)
        text = f"tube voltage {made.kvp:g} kV, {off:g} from the nearest known"
        found.append(_number("kvp_kv", text, off, limits))
    lengths = (
        ("pixel_factor", "pixels of", _pixel_mm(facts), known.pixel_mm),
        ("thickness_factor", "slices of", facts.thickness_mm, known.thickness_mm),
    )
    for name, what, length, (low, high) in lengths:
        if length and low:
            factor = max(low / length, length / high, 1.0)
            text = f"{what} {length:.3g} mm, {factor:.2g} times off {_span(low, high)}"
            found.append(_number(name, text, factor, limits))
    return found


def compare_descriptor(descriptor: Descriptor, side: Side, limits: ScanLimits) -> list[Finding]:
    """What pixels tell; what could not be read on either side is left out."""
    if not descriptor.knows_tissue:
        if not any(each.knows_tissue for each in side.descriptors):
            return []
        text = "hardly any tissue is there: no patient, or no Hounsfield units"
        return [Finding("body", text, exceeded=True)]
    off = nearest(descriptor, side.descriptors)
    words = {
        "noise_db": "level of noise {:+.1f} dB from the nearest known",
        "sharpness_db": "sharpness of noise {:.1f} dB from the nearest known",
        "tissue_nats": "CT numbers of tissue {:.2f} nats from the nearest known",
    }
    return [
        _number(name, words[name].format(getattr(off, name)), abs(getattr(off, name)), limits)
        for name in PIXEL_LIMITS
        if np.isfinite(getattr(off, name))
    ]


def unknown_to(
    facts: ScanFacts, descriptor: Descriptor, found: Iterable[Finding]
) -> tuple[str, ...]:
    """What a scan could not be compared by, in the order of `NAMES`."""
    compared = {each.name for each in found}
    return tuple(name for name in NAMES if name not in compared and name != "body")


def _named(name: str, value: str, known: Sequence[str], other: bool) -> Finding:
    shown = "".join(char if char.isprintable() else "?" for char in value)[:64]
    return Finding(name, f"{name} {shown}, known {' and '.join(known)}", other)


def _number(name: str, text: str, value: float, limits: ScanLimits) -> Finding:
    limit = getattr(limits, name)
    return Finding(name, f"{text} (limit {limit:g})", value > limit, value, limit)


def vendor(manufacturer: str) -> str:
    """The maker of a scanner: `GE MEDICAL SYSTEMS` and `GE Healthcare` are one."""
    return " ".join(manufacturer.casefold().split()[:1])


def _plain(kernel: str) -> str:
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
