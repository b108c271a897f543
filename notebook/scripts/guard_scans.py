"""How well the guard of scans tells bad ones from another patient's.

    python notebook/scripts/guard_scans.py --real ../shared/real_ct [--virtual scans/seed-0 ...]
           [--profiles]

Domains: each Siemens kernel learned from one quarter of z and tried on the other half; eight GE
slices of eight patients, each tried with the seven others; simulated vendors and kernels, tried on
bodies not learned from. Every scan is tried as it is, and with each of the faults below planted,
both with its headers and with headers that tell nothing, so that pixels must. Printed: the share
refused (of good scans: wrongly), and the largest distances that good scans have. With --profiles a
domain is known by its profile, with every sum kept, in place of its images.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from cvsct.core.sampling import read_sample, spread
from cvsct.core.volume import Acquisition, CTVolume, ScanFacts
from cvsct.guard.descriptor import Descriptor, describe
from cvsct.guard.input_check import PIXEL_LIMITS, SideReference
from cvsct.guard.overrides import Overrides
from cvsct.guard.scan_verdict import ScanVerdict, judge_scan
from cvsct.io.read import read_all
from cvsct.profile.profile import measure_profile

Hu = np.ndarray


@dataclass(frozen=True)
class Case:
    """A domain, and scans that belong to it."""

    name: str
    side: SideReference
    scans: tuple[CTVolume, ...]


def blocks(volume: CTVolume, first: float, last: float, count: int) -> list[CTVolume]:
    edges = (np.linspace(first, last, count + 1) * len(volume.hu)).round().astype(int)
    return [volume.select(slice(a, b)) for a, b in pairwise(edges.tolist())]


def sample(volume: CTVolume, most: int = 16) -> Iterator[CTVolume]:
    return (volume.select([i]) for i in spread(len(volume.hu), most))


BY_PROFILE = "profile"


def learned(volumes: Sequence[CTVolume], by: str = "") -> SideReference:
    if by == BY_PROFILE:
        return measure_profile(volumes).reference
    return SideReference.learn(
        list(map(ScanFacts.of, volumes)), [describe(sample(v, 8)) for v in volumes], "blocks"
    )


def real(root: Path, by: str) -> Iterator[Case]:
    for kernel in ("B40f", "B70f"):
        (volume,) = read_all(root / "siemens_sensation10" / kernel)
        for quarter in range(4):
            side = learned(blocks(volume, quarter / 4, (quarter + 1) / 4, 4), by)
            other = 0.5 if quarter < 2 else 0.0
            yield Case(f"Siemens {kernel}", side, tuple(blocks(volume, other, other + 0.5, 2)))
    slices = read_all(root / "ge_lightspeed_vct")
    for i, one in enumerate(slices):
        yield Case("GE STANDARD", learned([*slices[:i], *slices[i + 1 :]], by), (one,))


def virtual(root: Path, by: str) -> Iterator[Case]:
    for part in ("", "kernels"):
        train, test = root / part / "train", root / part / "test"
        for name in sorted(each.name for each in train.iterdir() if each.is_dir()):
            volumes = read_all(train / name)
            cut = volumes if len(volumes) > 1 else blocks(volumes[0], 0, 1, 3)
            yield Case(f"virtual {name}", learned(cut, by), tuple(read_all(test / name)))


def white(sd_hu: float) -> Callable[[Hu], Hu]:
    return lambda hu: hu + np.random.default_rng(0).normal(0, sd_hu, hu.shape)


def blur(sigma_px: float) -> Callable[[Hu], Hu]:
    return lambda hu: ndimage.gaussian_filter(hu, (0, sigma_px, sigma_px))


def sharpen(amount: float) -> Callable[[Hu], Hu]:
    return lambda hu: hu + amount * (hu - blur(1.0)(hu))


def own_noise(times: float) -> Callable[[Hu], Hu]:
    """Texture of this kernel so many times as strong: what is finer than 3 px."""
    return lambda hu: hu + (times - 1) * (hu - blur(3.0)(hu))


def contrast(hu: Hu) -> Hu:
    """A contrast phase: what lies above 20 HU gains 60."""
    smooth = blur(2.0)(hu)
    return np.where((smooth > 20) & (smooth < 120), hu + 60, hu)


def water(hu: Hu) -> Hu:
    """A water phantom of 28 cm with the noise of the scan's finest structure."""
    rows, columns = hu.shape[1:]
    y, x = np.mgrid[:rows, :columns]
    disc = np.hypot(y - rows / 2, x - columns / 2) < 0.3 * columns
    noise = hu - blur(2.0)(hu)
    middle = noise[:, rows // 2 - 30 : rows // 2 + 30, columns // 2 - 30 : columns // 2 + 30]
    sd = 1.4826 * float(np.median(np.abs(middle)))
    grain = np.random.default_rng(0).normal(0, sd, hu.shape)
    return np.where(disc, grain, -1000.0)


PLANTED: dict[str, Callable[[Hu], Hu]] = {
    "as it is": lambda hu: hu,
    "contrast phase (60 HU more)": contrast,
    "smoothed, sigma 0.7 px": blur(0.7),
    "smoothed, sigma 1 px": blur(1.0),
    "smoothed, sigma 2 px": blur(2.0),
    "sharpened by half": sharpen(0.5),
    "sharpened twofold": sharpen(2.0),
    "white noise of 20 HU more": white(20),
    "white noise of 60 HU more": white(60),
    "own noise twofold": own_noise(2),
    "own noise fourfold": own_noise(4),
    "1000 HU too high": lambda hu: hu + 1000,
    "100 HU too high": lambda hu: hu + 100,
    "1000 HU too low": lambda hu: hu - 1000,
    "HU divided by 1000": lambda hu: hu / 1000,
    "water phantom": water,
}


def judge(case: Case, volume: CTVolume, descriptor: Descriptor, blind: bool) -> ScanVerdict:
    facts = ScanFacts.of(volume)
    if blind:
        facts = replace(facts, acquisition=Acquisition(), thickness_mm=0.0)
    return judge_scan(facts, descriptor, case.side, case.side, Overrides())


def planted(case: Case, largest: dict[str, float]) -> Iterator[tuple[str, bool]]:
    """Each fault in each scan of the domain, and whether pixels alone refuse it."""
    for volume in case.scans:
        few = read_sample(volume)
        for name, fault in PLANTED.items():
            bad = few.with_hu(fault(few.hu.astype(np.float64)).astype(np.float32))
            verdict = judge(case, bad, describe(sample(bad)), blind=True)
            yield name, bool(verdict.reasons)
            if name == "as it is":
                for each in verdict.comparisons:
                    if each.name in largest:
                        largest[each.name] = max(largest[each.name], each.value)


def elsewhere(
    case: Case, others: Sequence[tuple[str, CTVolume, Descriptor]]
) -> Iterator[tuple[str, bool]]:
    """Scans of other domains, by pixels alone and with their headers."""
    for name, volume, descriptor in others:
        if name != case.name and name.split()[0] == "virtual" == case.name.split()[0]:
            where = "simulated: other vendor or kernel"
        elif name != case.name and "virtual" not in name + case.name:
            where = f"{case.name}'s model, {name}"
        else:
            continue
        yield f"{where}, pixels alone", bool(judge(case, volume, descriptor, blind=True).reasons)
        yield f"{where}, headers too", bool(judge(case, volume, descriptor, blind=False).reasons)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--virtual", type=Path, nargs="*", default=[])
    parser.add_argument("--profiles", action="store_true")
    given = parser.parse_args()
    by = BY_PROFILE if given.profiles else ""
    cases = [*real(given.real, by), *(c for root in given.virtual for c in virtual(root, by))]
    refused: dict[str, list[bool]] = defaultdict(list)
    largest = dict.fromkeys(PIXEL_LIMITS, 0.0)
    scans = {id(v.hu): (case.name, v) for case in cases for v in case.scans}
    others = [(name, v, describe(sample(v))) for name, v in scans.values()]
    for case in cases:
        for name, found in (*planted(case, largest), *elsewhere(case, others)):
            refused[name].append(found)
    for name, each in refused.items():
        print(f"| {name} | {sum(each)} of {len(each)} |")
    print("largest distance of a scan as it is:", {k: round(v, 2) for k, v in largest.items()})


if __name__ == "__main__":
    main()
