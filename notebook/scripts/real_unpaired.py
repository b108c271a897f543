"""Score methods on scans of two vendors that show different patients: spectra, not PSNR.

    python notebook/scripts/real_unpaired.py --source ../shared/real_ct/ge_lightspeed_vct \
        --target ../shared/real_ct/siemens_sensation10/B40f --work runs/ge

Every other series of SOURCE trains and the rest are harmonised. The lower half of TARGET's z range
is learned from; the upper half is what the spectra are compared with. Models already in WORK are
used again, as in real_pair.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.io.dicom import find_series
from cvsct.runs import write_json
from real_pair import files_by_position, link, run, train_once

SHOWN_PER_MM = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def lay_out(source: Path, target: Path, scans: Path) -> None:
    """Folders of links: train and test, source and target."""
    series = find_series(source)
    for index, each in enumerate(series):
        link(list(each.files), scans / ("test" if index % 2 else "train") / "source")
    slices = files_by_position(target)
    half = len(slices) // 2
    link(slices[:half], scans / "train" / "target")
    link(slices[half:], scans / "test" / "target")


def score(work: Path, method: str, options: list[str]) -> dict[str, Any]:
    """Train if needed, harmonise the test series, compare spectra with the target's."""
    scans, model, place = work / "scans", work / "models" / method, work / "results" / method
    train_once(method, scans / "train", ("source", "target"), model, options)
    if not (place / "images").exists():
        run("harmonize", scans / "test/source", "--model", model, "--out", place / "images")
    if not (place / "report").exists():
        run("evaluate", "--harmonized", place / "images", "--target", scans / "test/target",
            "--source", scans / "test/source", "--out", place / "report")  # fmt: skip
    metrics = json.loads((place / "report" / "metrics.json").read_text())
    return {
        "method": method,
        "spectral_distance_db_before": metrics["input"]["spectral_distance_db"],
        "spectral_distance_db_after": metrics["spectral_distance_db"],
        "soft_tissue_hu": metrics["soft_tissue_hu"],
        "spectra": metrics["spectra"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| method | distance of texture spectra before, dB | after, dB | mean soft tissue HU: "
        "source, harmonised, target |",
        "|---|---|---|---|",
    ]
    for one in rows:
        tissue = ", ".join(
            f"{one['soft_tissue_hu'][side]:.1f}" for side in ("source", "harmonized", "target")
        )
        lines.append(
            f"| {one['method']} | {one['spectral_distance_db_before']:.2f} "
            f"| {one['spectral_distance_db_after']:.2f} | {tissue} |"
        )
    heads = " | ".join(f"{at:g}" for at in SHOWN_PER_MM)
    lines += ["", f"| power, dB of HU² mm², at cycles/mm | {heads} |",
              "|---" * (1 + len(SHOWN_PER_MM)) + "|"]  # fmt: skip
    lines += [spectrum_row(f"source by {one['method']}", one, "harmonized") for one in rows]
    lines.append(spectrum_row("target", rows[0], "target"))
    return "\n".join(lines) + "\n"


def spectrum_row(name: str, one: dict[str, Any], side: str) -> str:
    """One line: a side's power at the frequencies shown, interpolated."""
    spectra = one["spectra"]
    pairs = [
        (at, power)
        for at, power in zip(spectra["frequencies_per_mm"], spectra["power_db"][side], strict=True)
        if power is not None
    ]
    values = np.interp(SHOWN_PER_MM, *zip(*pairs, strict=True))
    return f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--methods", default="input,histogram,spectrum")
    parser.add_argument("--train", default="", help="options for `cvsct train`")
    arguments = parser.parse_args()
    lay_out(arguments.source, arguments.target, arguments.work / "scans")
    rows = [
        score(arguments.work, method, arguments.train.split())
        for method in arguments.methods.split(",")
    ]
    write_json(arguments.work / "table.json", rows)
    (arguments.work / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
