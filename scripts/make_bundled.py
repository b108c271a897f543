"""Train, measure and install the models that come with the package.

    python scripts/make_bundled.py --work runs/bundled --minutes 90 [--train-only]
           [--methods spectrum cvsct] [--pairs ge-lung-siemens-bl64 siemens-bl64-br40]
           [--go-on] [--profiles-only]
    python scripts/make_bundled.py --cards-only

Four models: `spectrum` and `cvsct`, each for GE Lung and Siemens Bl64, and for Siemens Bl64 and
Br40, all on virtual scans (scripts/bundled_scans.py) and all of both ways. The networks train side
by side, one thread each, for `minutes`. `cvsct benchmark` then measures them on unseen bodies in
WORK/benchmark/PAIR, with the input, histogram matching and the plain filter beside them; its
figures go into the model cards, and the models into src/cvsct/bundled, with the profiles of all
four sides (`--profiles-only`: these alone). What is in WORK already is used again: fewer slices
than `bundled_scans.py` makes by default can be put into WORK/scans by it beforehand, `--methods
spectrum` renews the filters alone, and with `--go-on` networks start from the bundled models of the
same pair. `--cards-only` writes the cards of the bundled models anew, in the words of this version:
figures and weights stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bundled_scans import make
from cvsct.api.profile import fit_profile
from cvsct.guard.calibrate import ImagedSide, calibrate_guard
from cvsct.io.scans import open_scans
from cvsct.model.bundle import CHECKPOINT_FILE, MEASURED, SUMS_FILE, Bundle
from cvsct.model.pretrained import ROOT, bundled, bundled_names
from cvsct.profile.file import SUFFIX
from cvsct.simulation.benchmark import BL64, BR40, GE, KERNELS, SIEMENS, TEST, TRAIN

METHODS = ("spectrum", "cvsct")
BESIDE = ("input", "histogram", "spectrum-plain")
ROIS = 120
LIMIT_MB = 20.0
SETTINGS = ["schedule.keep_models=true", "schedule.validate_steps=200"]


@dataclass(frozen=True)
class Pair:
    """Two sides of a benchmark folder.

    Args:
        name: in the names of its models.
        folder: below the scans.
        sides: folders of the two, A before B.
        a, b: the two in words.
    """

    name: str
    folder: str
    sides: tuple[str, str]
    a: str
    b: str


PROFILES = {
    "ge-lung-5mm": (".", GE),
    "siemens-bl64-5mm": (".", SIEMENS),
    "siemens-bl64-3mm": (KERNELS, *BL64),
    "siemens-br40-3mm": (KERNELS, *BR40),
}
"""Names of the profiles, and folder and side of the scans that each is measured of."""

PAIRS = (
    Pair("ge-lung-siemens-bl64", ".", (GE, SIEMENS), "GE Lung", "Siemens Bl64"),
    Pair("siemens-bl64-br40", KERNELS, (*BL64, *BR40), "Bl64", "Br40"),
)


def cvsct(*words: object, log: Path | None = None) -> int:
    """Exit code of a command in a process of its own, with one thread where it has a log."""
    command = [sys.executable, "-m", "cvsct.cli", *map(str, words)]
    if log is None:
        return subprocess.run(command, check=False).returncode
    log.parent.mkdir(parents=True, exist_ok=True)
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8", newline="\n") as stream:
        return subprocess.run(
            command, stdout=stream, stderr=stream, env=one_thread, check=False
        ).returncode


def train(
    method: str,
    scans: Path,
    sides: tuple[str, str],
    model: Path,
    minutes: float,
    initial: str | None,
) -> str:
    """One training, which goes on where an earlier one stopped; what failed, or nothing."""
    if (model / SUMS_FILE).exists():
        return ""
    words: list[object] = ["train", method, "--source", scans / sides[0]]
    words += ["--target", scans / sides[1], "--out", model, "--max-minutes", minutes]
    if method == "cvsct":
        start = [] if initial is None else [f"initial_model={initial}"]
        for setting in ("max_steps=100000", *SETTINGS, *start):
            words += ["--set", setting]
    if (model / CHECKPOINT_FILE).exists():
        words.append("--resume")
    log = model.parent / f"{model.name}.log"
    code = cvsct(*words, log=log)
    return f"{model.name}: exit code {code}, see {log}" if code else ""


def learn(pair: Pair, work: Path, minutes: float, methods: Sequence[str], go_on: bool) -> list[str]:
    """The models of a pair into its benchmark folder; what failed, one line each."""
    scans = work / "scans" / pair.folder / TRAIN
    models = work / "benchmark" / pair.name / "models"
    initial = f"{pair.name}-cvsct" if go_on else None
    failed = [
        train(method, scans, pair.sides, models / f"{method}-0", minutes, initial)
        for method in methods
    ]
    return [line for line in failed if line]


def measure(pair: Pair, work: Path, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Results of all methods, as `cvsct benchmark` leaves them."""
    out = work / "benchmark" / pair.name
    names = ",".join((*BESIDE, *methods))
    code = cvsct(
        *("benchmark", "--data", work / "scans" / pair.folder, "--methods", names),
        *("--out", out, "--rois", ROIS),
    )
    if code:
        sys.exit(f"cvsct benchmark: exit code {code}")
    results: list[dict[str, Any]] = json.loads((out / "results.json").read_text(encoding="utf-8"))[
        "results"
    ]
    return results


def measured(pair: Pair, results: list[dict[str, Any]], method: str, slices: int) -> dict[str, Any]:
    """What a model card says of unseen scans: input, what the model makes of it, retest."""
    rows = []
    for direction, way in enumerate((f"A to B ({pair.a} to {pair.b})", "B to A")):
        of = {each["method"]: each["metrics"] for each in results if each["direction"] == direction}
        retest = of[method]["retest"]
        for name, one in (("input", of["input"]), (method, of[method]), ("retest", retest)):
            bias = one.get("hu_bias")
            rows.append({
                "direction": way,
                "images": name,
                "CCC across": f"{one['ccc_across_mean']:.3f}",
                "worst class": f"{min(one['ccc_across'].values()):.2f}",
                "PSNR dB": f"{one['psnr_db']:.1f}",
                "soft-tissue bias HU": "-" if bias is None else f"{bias:+.1f}",
            })  # fmt: skip
    return {
        "on": (
            f"Two bodies that were in no training, {slices} slices each, simulated on both sides "
            f"at one place, {ROIS} regions of soft tissue; one voltage, one slice thickness, no "
            "real patient. `scripts/make_bundled.py` measured it."
        ),
        "rows": rows,
    }


def install(pair: Pair, work: Path, results: list[dict[str, Any]], methods: Sequence[str]) -> None:
    """The models, with their figures and the limits of this version's guards, into the package."""
    tested = open_scans(work / "scans" / pair.folder / TEST / pair.sides[0])
    slices = tested.facts[0].shape[0]
    learned_from = [open_scans(work / "scans" / pair.folder / TRAIN / side) for side in pair.sides]
    for method in methods:
        model = Bundle.read(work / "benchmark" / pair.name / "models" / f"{method}-0")
        a, b = (ImagedSide(scans.series, scans.facts) for scans in learned_from)
        model = calibrate_guard(model, a, b)
        figures = {**model.training, MEASURED: measured(pair, results, method, slices)}
        place = ROOT / f"{pair.name}-{method}"
        shutil.rmtree(place, ignore_errors=True)
        replace(model, training=figures).write(place)
        size_mb = sum(file.stat().st_size for file in place.iterdir()) / 1e6
        print(f"{place}: {size_mb:.1f} MB")
    total_mb = sum(file.stat().st_size for file in ROOT.rglob("*") if file.is_file()) / 1e6
    if total_mb > LIMIT_MB:
        sys.exit(f"{ROOT}: {total_mb:.1f} MB, more than {LIMIT_MB:g}")


def install_profiles(work: Path) -> None:
    """Measure the profiles and write them into the package."""
    for name, (folder, side) in PROFILES.items():
        place = ROOT / f"{name}{SUFFIX}"
        place.unlink(missing_ok=True)
        profile = fit_profile(work / "scans" / folder / TRAIN / side, place, allow=["phantom"])
        print(f"{place}: {place.stat().st_size / 1e6:.1f} MB, {profile.n_patients} patients")


def renew_cards() -> None:
    """Write the bundled models anew, whose cards have the words of this version."""
    for place in map(bundled, bundled_names()):
        Bundle.read(place).write(place)


def main() -> None:
    names = [pair.name for pair in PAIRS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--minutes", type=float, default=90.0, help="of each network")
    parser.add_argument("--train-only", action="store_true", help="measure and install later")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--pairs", nargs="+", choices=names, default=names)
    parser.add_argument("--go-on", action="store_true", help="from the bundled networks")
    parser.add_argument("--profiles-only", action="store_true")
    parser.add_argument("--cards-only", action="store_true")
    args = parser.parse_args()
    if args.cards_only:
        renew_cards()
        return
    if args.work is None:
        parser.error("the following arguments are required: --work")
    if not (args.work / "scans" / "manifest.json").exists():
        make(args.work / "scans", workers=0)
    if args.profiles_only:
        install_profiles(args.work)
        return
    pairs = [pair for pair in PAIRS if pair.name in args.pairs]
    with ThreadPoolExecutor(len(pairs)) as pool:
        learned = pool.map(
            lambda pair: learn(pair, args.work, args.minutes, args.methods, args.go_on), pairs
        )
        failed = [line for lines in learned for line in lines]
    if failed:
        sys.exit("; ".join(failed))
    if args.train_only:
        return
    install_profiles(args.work)
    for pair in pairs:
        install(pair, args.work, measure(pair, args.work, args.methods), args.methods)


if __name__ == "__main__":
    main()
