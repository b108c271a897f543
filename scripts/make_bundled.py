"""Train, measure and install the models that come with the package.

    python scripts/make_bundled.py --work runs/bundled --minutes 90 [--train-only]

Four models: `spectrum` and `cvsct`, each for GE Lung and Siemens Bl64, and for Siemens Bl64 and
Br40, all on virtual scans (scripts/bundled_scans.py) and all of both ways. The networks train side
by side, one thread each, for `minutes`. `cvsct benchmark` then measures them on unseen bodies in
WORK/benchmark/PAIR, with the input, histogram matching and the plain filter beside them; its
figures go into the model cards, and the models into src/cvsct/bundled. What is in WORK already is
used again.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundled_scans import make
from cvsct.scanner.benchmark import BL64, BR40, GE, KERNELS, SIEMENS
from real_pair import run
from virtual_study import Job, train

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
        title: what A and B are.
    """

    name: str
    folder: str
    sides: tuple[str, str]
    title: str


PAIRS = (
    Pair("ge-lung-siemens-bl64", ".", (GE, SIEMENS), "GE Lung and Siemens Bl64, simulated"),
    Pair("siemens-bl64-br40", KERNELS, (*BL64, *BR40), "Siemens Bl64 and Br40, simulated"),
)


def learn(pair: Pair, work: Path, minutes: float) -> list[str]:
    """The models of a pair into its benchmark folder; what failed, one line each."""
    data = work / "scans" / pair.folder
    failed = []
    for method in METHODS:
        model = work / "benchmark" / pair.name / "models" / f"{method}-0"
        settings = SETTINGS if method == "cvsct" else []
        failed.append(train(Job(method, settings, 0, model, minutes, sides=pair.sides), data))
    return [each for each in failed if each]


def measure(pair: Pair, work: Path) -> list[dict[str, Any]]:
    """Results of all methods, as `cvsct benchmark` leaves them."""
    out = work / "benchmark" / pair.name
    names = ",".join((*BESIDE, *METHODS))
    run("benchmark", "--data", work / "scans" / pair.folder, "--methods", names, "--out", out,
        "--rois", ROIS)  # fmt: skip
    results: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["results"]
    return results


def figures(results: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """What a model card says was measured, by direction."""
    found: dict[str, Any] = {}
    for direction, name in enumerate(("a_to_b", "b_to_a")):
        for row in ("input", method):
            (result,) = (
                each["metrics"]
                for each in results
                if each["method"] == row and each["direction"] == direction
            )
            found[f"{name}_{row}"] = {
                "ccc_across": round(result["ccc_across_mean"], 3),
                "psnr_db": round(result["psnr_db"], 1),
                "hu_bias": round(result["hu_bias"], 2),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90.0, help="of each network")
    parser.add_argument("--train-only", action="store_true")
    args = parser.parse_args()
    if not (args.work / "scans" / "manifest.json").exists():
        make(args.work / "scans", workers=0)
    with ThreadPoolExecutor(len(PAIRS)) as pool:
        learned = pool.map(lambda pair: learn(pair, args.work, args.minutes), PAIRS)
        failed = [line for lines in learned for line in lines]
    if failed:
        sys.exit("; ".join(failed))
    if args.train_only:
        return


if __name__ == "__main__":
    main()
