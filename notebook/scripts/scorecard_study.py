"""Operating point of each tile of the scorecard: repeat scans, and faults that are planted.

    python notebook/scripts/scorecard_study.py --out FOLDER --draws 20 [--slices 8] [--workers 2]
           [--faults blur ...]

Draws that OUT holds are used again; faults that are named are measured again in all of them.

Each draw is a new patient-like body, scanned by one scanner with a soft kernel: the target, its
repeat scan, a scan of a sharp kernel (the source), and one at 10,000 times the dose, whose noise is
hardly to be seen. The repeat scan stands for perfect harmonization. Then one property of it is
spoilt, by half, once and twice the size that a tile must find:

    bone          3 HU on bone
    blur          a Gaussian that takes 10 % off the 50 % frequency, on the noise-free image alone
    noise         15 % more noise
    texture       a quarter, half and all of the noise power of the sharp kernel, at equal level
    shift         half a pixel across
    learned       slices of the target that the model learned from: 1, 2, 4
    direction     harmonized in the other direction (no size)

Printed and written to OUT/scorecard.json: how many of the draws turn each tile, and to what.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

import cvsct
from cvsct.core.files import write_json
from cvsct.core.volume import CTVolume
from cvsct.evaluation.evaluate import evaluate
from cvsct.evaluation.guards import GuardRecord
from cvsct.evaluation.image.edge_mtf import edge_transfer
from cvsct.evaluation.image.tissues import TissueMap
from cvsct.evaluation.independence import Independence
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.scorecard.tile import Status
from cvsct.evaluation.settings import EvaluationSettings
from cvsct.io.dicom.simulated import write_simulated
from cvsct.simulation.benchmark import SIEMENS, ImageSize, Scan, SimulationOptions, Subject
from cvsct.simulation.pairs import FIRST_NUMBER, Technique
from cvsct.simulation.run import run_simulation

SPACING_MM = 10.0
FIRST_BODY = 7001
SOFT, SHARP = "Br40", "Bl64"
QUIET_MAS = 1e6
SIZES = (0.5, 1.0, 2.0)
BONE_HU, BLUR, NOISE, SHIFT_PX = 3.0, 0.10, 0.15, 0.5
TILES = {
    "bone": "ct_numbers", "blur": "resolution", "noise": "noise_level",
    "texture": "noise_texture", "shift": "geometry", "learned": "independence",
    "direction": "guards",
}  # fmt: skip
CLEAR = GuardRecord("1", "in_domain", 1.0, (), 8, ())


def plan(draws: int, slices: int) -> list[Scan]:
    """All scans of all bodies."""
    scans: list[Scan] = []
    for draw in range(draws):
        body = Subject("patient", FIRST_BODY + draw)
        for part, kernel, mas in (
            ("target", SOFT, 100.0), ("repeat", SOFT, 100.0), ("source", SHARP, 100.0),
            ("other", SHARP, 100.0), ("quiet", SOFT, QUIET_MAS), ("quiet-other", SHARP, QUIET_MAS),
        ):  # fmt: skip
            technique = Technique(kernel, SIEMENS, kernel, thickness_mm=1.5, mas=mas)
            scan = technique.scan(
                f"{draw:02d}/{part}", FIRST_NUMBER + len(scans), body, slices, SPACING_MM, 0,
                SimulationOptions(), ImageSize(),
            )  # fmt: skip
            acquisition = "first" if part in ("source", "target") else part.split("-")[0]
            scans.append(replace(scan, acquisition=f"{draw:02d}/{acquisition}"))
    return scans


def faults(
    sides: dict[str, CTVolume], wanted: Sequence[str]
) -> Iterator[tuple[str, float, CTVolume]]:
    """The repeat scan with each fault that is wanted, by name and size."""
    repeat, quiet = sides["repeat"].hu, sides["quiet"].hu
    noise = repeat - quiet
    other = sides["other"].hu - sides["quiet-other"].hu
    other = other * (noise.std() / other.std())
    bone = TissueMap.of(sides["quiet"]).codes == 5
    make: dict[str, Callable[[float], np.ndarray]] = {
        "bone": lambda size: repeat + np.where(bone, size * BONE_HU, 0.0),
        "blur": lambda size: blurred(quiet, blur_for(sides, size * BLUR)) + noise,
        "noise": lambda size: quiet + (1 + size * NOISE) * noise,
        "texture": lambda size: quiet + _mixed(noise, other, size / 2),
        "shift": lambda size: ndimage.shift(
            repeat, (0, 0, size * SHIFT_PX), order=3, mode="nearest"
        ),
    }
    for name, spoilt in make.items():
        for size in SIZES if name in wanted else ():
            yield name, size, _with(sides, spoilt(size))


def blurred(hu: np.ndarray, sigma_px: float) -> np.ndarray:
    """Slices under a Gaussian, by its transfer: a sampled kernel of .3 px hardly blurs at all."""
    spectra = np.fft.fft2(hu.astype(np.float64))
    return np.stack([np.fft.ifft2(ndimage.fourier_gaussian(s, sigma_px)).real for s in spectra])


def _mixed(noise: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Noise of unchanged level with a share of its power from another kernel's."""
    mixed = np.sqrt(1 - share) * noise + np.sqrt(share) * other
    return np.asarray(mixed * (noise.std() / mixed.std()))


def blur_for(sides: dict[str, CTVolume], share: float) -> float:
    """Sigma in pixels of the Gaussian that takes `share` off the 50 % frequency of edges.

    Where the blurred curve falls to a half, the curve itself has a half over the Gaussian's
    transfer, exp(-2 (pi sigma f)^2).
    """
    quiet = sides["quiet"]
    edges = max(edge_transfer({"target": [quiet]}).values(), key=lambda k: k["target"].n_edges)
    curve = edges["target"].transfer
    f = (1 - share) * curve.mtf50_per_mm
    left = float(np.interp(f, curve.f_per_mm, curve.mtf))
    return float(np.sqrt(np.log(2 * left) / 2) / (np.pi * f) / quiet.pixel_mm)


def _with(sides: dict[str, CTVolume], hu: np.ndarray) -> CTVolume:
    return replace(sides["repeat"], hu=hu.astype(np.float32))


def judged(sides: dict[str, CTVolume], harmonized: CTVolume, rois: int) -> Evaluation:
    """Evaluation of a volume as if it were the harmonized source, with nothing else amiss."""
    settings = EvaluationSettings(rois=rois, workers=1, bootstrap=400 if rois > 3 else 20)
    evaluation = evaluate([harmonized], [sides["target"]], [sides["source"]], settings)
    independence = Independence({"source": 0, "target": 0}, {"source": (0, 1), "target": (0, 1)})
    return replace(evaluation, guards=(CLEAR,), independence=independence)


def study_draw(folder: Path, wanted: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Status and value: of all tiles for the repeat scan, of one tile for each fault."""
    sides = {part.name: cvsct.read_series(part) for part in sorted(folder.iterdir())}
    found: dict[str, dict[str, list[str]]] = {}

    def note(fault: str, evaluation: Evaluation) -> None:
        key = TILES[fault.split(maxsplit=1)[0]]
        (tile,) = [tile for tile in evaluation.scorecard.tiles if tile.key == key]
        found[fault] = {tile.key: [tile.status, tile.value]}

    for name, size, volume in faults(sides, wanted):
        note(f"{name} x{size:g}", judged(sides, volume, 3))
    if "repeat" not in wanted:
        return found
    perfect = judged(sides, sides["repeat"], 120)
    found["repeat"] = {t.key: [t.status, t.value] for t in perfect.scorecard.tiles}
    for size in SIZES:
        learned = Independence(
            {"source": 0, "target": int(2 * size)}, {"source": (0, 1), "target": (1, 1)}
        )
        note(f"learned x{size:g}", replace(perfect, independence=learned))
    note("direction x1", replace(perfect, wrong_direction="1 of 1 series in the other direction"))
    return found


def draw_again(out: Path, draw: int, again: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """The figures of a draw, from OUT where they are there and are not to be measured again."""
    cached = out / f"draw-{draw:02d}.json"
    found = json.loads(cached.read_text()) if cached.exists() else {}
    wanted = again if found else ["repeat", *TILES]
    if wanted:
        found |= study_draw(out / "scans" / f"{draw:02d}", wanted)
        write_json(cached, found)
        print(f"draw {draw}", flush=True)
    return found


def main() -> None:
    """Simulate, plant, judge and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--faults", nargs="*", default=[], choices=["repeat", *TILES])
    options = parser.parse_args()
    scans, folder = plan(options.draws, options.slices), options.out / "scans"
    simulated = run_simulation(
        scans, {"seed": 0, **SimulationOptions().record()}, folder, write_simulated,
        options.workers, note=print,
    )  # fmt: skip
    if simulated.failed:
        raise SystemExit(f"scans failed: {simulated.failed}")
    with ProcessPoolExecutor(options.workers) as pool:
        draws = list(
            pool.map(partial(draw_again, options.out, again=options.faults), range(options.draws))
        )
    table: dict[str, dict[str, dict[Status, int]]] = {}
    for found in draws:
        for fault, tiles in found.items():
            for key, (status, _) in tiles.items():
                counts = table.setdefault(fault, {}).setdefault(key, Counter())
                counts[status] += 1
    write_json(options.out / "scorecard.json", {"draws": options.draws, "counts": table})
    for fault, tiles in table.items():
        for key, counts in tiles.items():
            print(f"{fault:14} {key:14}", dict(counts))


if __name__ == "__main__":
    main()
