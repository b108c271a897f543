"""Score methods on a real kernel pair: unpaired training on one half, paired test on the other.

    python notebook/scripts/real_pair.py --work runs/pair \
        --pair ../shared/real_ct/siemens_sensation10

Protocols (notebook/real_pair.md). `same`: source and target slices are both from the lower half of
the z range. `different-1`, `different-2`: source from one of its two quarters, target from the
other, so that no slice position is in common. The test is the upper half, with the pairing, in
both directions. Everything runs through the command line; a model that is already in WORK is
used again, so long trainings can be run beforehand by `cvsct train` into the folder shown.
`WORK/benchmark/PROTOCOL` is laid out for `cvsct benchmark --data`, which gives the full reports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from cvsct.io.dicom import find_series, read_series
from cvsct.models.bundle import SUMS_FILE
from cvsct.runs import write_json

SHARP, SOFT = "B70f", "B40f"
CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")


def run(*arguments: object) -> None:
    """One cvsct command; a failure ends the script."""
    command = [sys.executable, "-m", "cvsct.cli", *map(str, arguments)]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)


def train_once(
    method: str, scans: Path, sides: tuple[str, str], model: Path, more: list[str]
) -> None:
    """Train on two folders of `scans`, unless the model is there already."""
    if not (model / SUMS_FILE).exists():
        source, target = (scans / side for side in sides)
        run("train", method, "--source", source, "--target", target, "--out", model, *more)


def files_by_position(folder: Path) -> list[Path]:
    """The files of the one series in a folder, lowest slice first."""
    (series,) = find_series(folder)
    volume = read_series(series)
    by_uid = {
        pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID: file
        for file in series.files
    }
    return [by_uid[header.SOPInstanceUID] for header in volume.headers]


def link(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        place = folder / file.name
        if not place.is_symlink():
            place.symlink_to(file.resolve())


def lay_out(pair: Path, work: Path) -> list[str]:
    """Folders of links for each protocol; returns the protocols' names."""
    sharp, soft = (files_by_position(pair / kernel) for kernel in (SHARP, SOFT))
    half, quarter = len(sharp) // 2, len(sharp) // 4
    first, second = slice(0, quarter), slice(half - quarter, half)
    parts = {
        "same": (slice(0, half), slice(0, half)),
        "different-1": (first, second),
        "different-2": (second, first),
        "test": (slice(half, None), slice(half, None)),
    }
    for name, slices in parts.items():
        for kernel, files, part in zip(("sharp", "soft"), (sharp, soft), slices, strict=True):
            link(files[part], work / "scans" / name / kernel)
            if name != "test":
                link(files[part], work / "benchmark" / name / "train" / kernel)
                link(files[half:], work / "benchmark" / name / "test" / kernel)
    return [name for name in parts if name != "test"]


def score(work: Path, protocol: str, method: str, options: list[str], seeds: int) -> list[Any]:
    """Train if needed, harmonise the test half both ways, evaluate; one row a direction."""
    scans, test = work / "scans" / protocol, work / "scans" / "test"
    model = work / "models" / protocol / method
    train_once(method, scans, ("sharp", "soft"), model, options)
    rows = []
    for direction, source, target, reverse in (
        ("sharp to soft", test / "sharp", test / "soft", []),
        ("soft to sharp", test / "soft", test / "sharp", ["--reverse"]),
    ):
        place = work / "results" / protocol / method / direction.replace(" ", "-")
        about = {"protocol": protocol, "method": method, "direction": direction}
        rows.append(measure(about, (source, target, model), place, reverse, seeds))
    return rows


def measure(
    about: dict[str, str],
    paths: tuple[Path, Path, Path],
    place: Path,
    reverse: list[str],
    seeds: int,
    rois: int = 24,
) -> dict[str, Any]:
    """Harmonise a source by a model and evaluate it against a target; one line of the table.

    Args:
        about: what the line says of itself: protocol, method, direction.
        paths: source, target, model.
        place: where images and reports go; what is there already is used.
        seeds: placements of the regions. The figures are those of the first; the mean
            concordance is given for each.
    """
    source, target, model = paths
    images = place / "images"
    if not images.exists():
        run("harmonize", source, "--model", model, "--out", images, *reverse)
    found = []
    for seed in range(seeds):
        report = place / f"seed-{seed}"
        if not report.exists():
            run("evaluate", "--harmonized", images, "--target", target, "--source", source,
                "--out", report, "--seed", seed, "--rois", rois)  # fmt: skip
        found.append(json.loads((report / "metrics.json").read_text()))
    first = found[0]
    across = [np.mean(list(metrics["ccc_across"].values())) for metrics in found]
    speed = json.loads((images / "manifest.json").read_text())["figures"]["slices_per_s"]
    return {
        **about,
        "psnr_db": first["psnr_db"],
        "ssim": first["ssim"],
        "ncc": first["ncc"],
        "hu_bias": first["hu_bias"],
        "ccc_across_mean": float(across[0]),
        "ccc_across_mean_by_seed": [float(value) for value in across],
        "ccc_within_mean": float(np.mean(list(first["ccc_within"].values()))),
        "ccc_across": first["ccc_across"],
        "ccc_within": first["ccc_within"],
        "slices_per_s": speed,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| direction | protocol | method | PSNR dB | SSIM | NCC | HU bias | CCC across (seeds) "
        "| CCC within |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(rows, key=lambda one: (one["direction"], one["protocol"])):
        seeds = one["ccc_across_mean_by_seed"]
        lines.append(
            f"| {one['direction']} | {one['protocol']} | {one['method']} | {one['psnr_db']:.1f} "
            f"| {one['ssim']:.3f} | {one['ncc']:.4f} | {one['hu_bias']:+.1f} "
            f"| {one['ccc_across_mean']:.3f} ({min(seeds):.3f} to {max(seeds):.3f}) "
            f"| {one['ccc_within_mean']:.3f} |"
        )
    heads = " | ".join(CLASSES)
    for kind in ("across", "within"):
        lines += ["", f"CCC {kind} by class", "", f"| direction | protocol | method | {heads} |",
                  "|---" * (3 + len(CLASSES)) + "|"]  # fmt: skip
        for one in sorted(rows, key=lambda one: (one["direction"], one["protocol"])):
            values = " | ".join(f"{one[f'ccc_{kind}'][name]:.3f}" for name in CLASSES)
            lines.append(f"| {one['direction']} | {one['protocol']} | {one['method']} | {values} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", type=Path, required=True, help=f"holds {SHARP}/ and {SOFT}/")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--methods", default="input,histogram,spectrum")
    parser.add_argument("--protocols", default="same,different-1,different-2")
    parser.add_argument("--seeds", type=int, default=3, help="placements of the regions")
    parser.add_argument("--train", default="", help="options for `cvsct train`")
    arguments = parser.parse_args()
    lay_out(arguments.pair, arguments.work)
    rows = [
        each
        for protocol in arguments.protocols.split(",")
        for method in arguments.methods.split(",")
        for each in score(
            arguments.work, protocol, method, arguments.train.split(), arguments.seeds
        )
    ]
    write_json(arguments.work / "table.json", rows)
    (arguments.work / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
