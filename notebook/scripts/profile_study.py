"""What a profile costs against images, and what it tells of the patients in it.

    python notebook/scripts/profile_study.py bodies --scans BODIES [--bodies 100] [--slices 2]
           [--kernel Br40] [--mas-share 1]
    python notebook/scripts/profile_study.py membership --scans BODIES [--draws 20]
    python notebook/scripts/profile_study.py reconstruction --scans BODIES
    python notebook/scripts/profile_study.py constancy --scans BODIES [--now NAME=FOLDER ...]
    python notebook/scripts/profile_study.py fit --data DATA [--few]

BODIES are patients on one simulated scanner, 24 mm from slice to slice, made by `bodies` and
continued where it was interrupted. DATA holds `train/SIDE`, `test/SIDE` and `repeat/SIDE`.

`membership`: a profile of N patients, and as many others of the same scanner. Who has a patient's
images measures them and asks whether they are in the profile, in two ways: by *likelihood*, the
correlation of the patient's and the profile's means with those of yet other patients taken away
(Sankararaman et al. 2009, doi 10.1038/ng.436), and by *subtraction*: what is left of the sums
without the patient must still be sums that patients can have. Printed is the area under the ROC
curve over members and others.

`reconstruction`: patches are drawn at random with the power spectrum of a cell of a profile of one
patient; the correlation of the best of 1,000 with each patch of that cell, beside the best of
1,000 with the patches of another patient.

`constancy`: profiles of 20 patients each against 20 others, of the same scanner, of the folders
in --now (also made by `bodies`), and with a filter that is sharper or softer by 15 % at .375/mm or
all CT numbers 8 HU higher.

`fit`: gains and concordance of `spectrum` from images, from profiles, and from profiles whose small
sums are kept (--few: of fewer than three patients as well).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Float

from body_draws import by_patient, measured
from cvsct.cli.progress import progress
from cvsct.core.masks import body
from cvsct.core.moments import centered
from cvsct.core.spectra import patch_spectra
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.simulated import write_simulated
from cvsct.io.read import read_all
from cvsct.methods.base import RunOptions, TrainingRequest
from cvsct.methods.registry import find_method
from cvsct.methods.spectrum.slice_filter import filter_slices
from cvsct.profile.compare import compare_profiles
from cvsct.profile.profile import ScannerProfile, measure_profile
from cvsct.simulation.benchmark import BODIES_PER_SEED, Subject
from cvsct.simulation.plan import plan
from cvsct.simulation.run import run_simulation

SEED, KERNEL = 70, "Br40"
SIZES = (1, 3, 10, 50)


def simulate_bodies(args: argparse.Namespace) -> None:
    """Simulate so many patients on one scanner."""
    template = next(
        scan for scan in plan("demo", SEED, parts=["kernels/train"]) if KERNEL in scan.kernels
    )
    template = replace(
        template, kernels=(args.kernel,), mas=tuple(args.mas_share * mas for mas in template.mas)
    )
    scans = [
        replace(
            template, number=i, body=Subject("patient", BODIES_PER_SEED * SEED + i + 1),
            slices=args.slices, first_mm=-(args.slices - 1) * 12.0, spacing_mm=24.0,
        )
        for i in range(args.first, args.first + args.bodies)
    ]  # fmt: skip
    config = {
        "scans": "profiles", "seed": SEED, "first": args.first, "bodies": args.bodies,
        "slices": args.slices, "kernel": args.kernel, "mas_share": args.mas_share,
    }  # fmt: skip
    run_simulation(scans, config, args.scans, write_simulated, args.workers, progress(), note=print)


def patients_in(folder: Path) -> list[CTVolume]:
    """Patients in the order of their names."""
    return sorted(read_all(folder), key=lambda volume: volume.patient)


def total(profiles: Sequence[ScannerProfile]) -> ScannerProfile:
    """Profile of all patients together."""
    first, *others = profiles
    return sum(others, first)


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Area under the ROC curve."""
    a, b = np.array(members)[:, None], np.array(others)[None, :]
    return float(np.mean((a > b) + 0.5 * (a == b)))


def cell_means(profile: ScannerProfile) -> Float[np.ndarray, " cells"]:
    """Mean of every covariate and value in every cell; NaN where a cell is empty."""
    means = []
    for part in profile.moments().values():
        counts = part.counts[:, :, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append((part.sums[:, :, 0, 1:] / counts).ravel())
    return np.concatenate(means)


def likelihood(
    patient: Float[np.ndarray, " cells"],
    profile: Float[np.ndarray, " cells"],
    population: Float[np.ndarray, "patients cells"],
) -> float:
    """Correlation of a patient's and a profile's cell means, those of others taken away."""
    count = np.isfinite(population).sum(axis=0)
    mean = np.nansum(population, axis=0) / np.maximum(count, 1)
    variance = np.nansum((population - mean) ** 2, axis=0) / np.maximum(count - 1, 1)
    used = np.isfinite(patient) & np.isfinite(profile) & (count > 3) & (variance > 1e-12)
    if not used.any():
        return 0.0
    sd = np.sqrt(variance[used])
    mine, theirs = ((x[used] - mean[used]) / sd for x in (patient, profile))
    mine, theirs = np.clip(mine, -5, 5), np.clip(theirs, -5, 5)
    return float(mine @ theirs / (np.linalg.norm(mine) * np.linalg.norm(theirs) + 1e-12))


def subtraction(patient: ScannerProfile, profile: ScannerProfile) -> float:
    """Share of the profile's cells from which the patient's sums can be taken away."""
    possible, cells = 0, 0
    for name, part in profile.moments().items():
        mine = patient.moments()[name].to(part.sums.shape[1])
        both = (part.counts > 0) & (mine.counts > 0)
        rest = (part.sums - mine.sums)[both]
        counts = rest[:, 0, 0]
        scatter = centered(rest[counts > 0])
        scale = np.sqrt(
            np.maximum(np.diagonal(part.sums[both][counts > 0], axis1=1, axis2=2), 1e-9)
        )
        lowest = np.linalg.eigvalsh(scatter / scale[:, :, None] / scale[:, None, :])[:, 0]
        possible += int(np.sum(lowest > -1e-7)) + int(np.sum(np.abs(counts) < 0.5))
        cells += len(counts)
    return possible / max(cells, 1)


def membership(args: argparse.Namespace) -> list[dict[str, Any]]:
    """AUC of both attacks by number of patients."""
    profiles = [measure_profile([volume]) for volume in patients_in(args.scans)]
    means = [cell_means(profile) for profile in profiles]
    longest = max(map(len, means))
    means = [np.pad(m, (0, longest - len(m)), constant_values=np.nan) for m in means]
    rng = np.random.default_rng(0)
    rows = []
    for n in SIZES:
        found: dict[str, list[float]] = {"likelihood": [], "subtraction": []}
        kept = []
        for _ in range(args.draws if n < 50 else max(args.draws // 5, 1)):
            order = rng.permutation(len(profiles))
            members, others = order[:n], order[n : 2 * n]
            rest = order[2 * n :] if len(order) - 2 * n >= 10 else order[n:]
            whole = total([profiles[i] for i in members])
            shared = whole.shareable(few_patients=n < 3)
            kept.append(shared.share_kept(whole))
            theirs = cell_means(shared)
            theirs = np.pad(theirs, (0, longest - len(theirs)), constant_values=np.nan)

            found["likelihood"].append(
                auc(*(
                    [
                        likelihood(means[i], theirs, np.stack([means[j] for j in rest if j != i]))
                        for i in group
                    ]
                    for group in (members, others)
                ))
            )  # fmt: skip
            found["subtraction"].append(
                auc(*([subtraction(profiles[i], shared) for i in group]
                      for group in (members, others)))
            )  # fmt: skip
        row = {"patients": n, "patches_kept": round(float(np.mean(kept)), 3),
               **{k: round(float(np.mean(v)), 3) for k, v in found.items()}}  # fmt: skip
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def reconstruction(args: argparse.Namespace) -> None:
    """Best correlation of drawn patches with real ones, of the patient and of another."""
    rng = np.random.default_rng(0)
    mine, other = patients_in(args.scans)[:2]
    profile = measure_profile([mine]).shareable(few_patients=True)
    part = profile.texture.body
    cells = np.flatnonzero(part.patches > 0)
    cell = cells[np.argmin(part.patches[cells])]
    mean = part.sums[cell, :, 0, -1] / np.maximum(part.counts[cell], 1)
    size = round(40 / mine.pixel_mm)
    f = scipy.fft.fftfreq(size, mine.pixel_mm)
    radius = np.hypot(f[:, None], f)
    amplitude = np.exp(0.5 * np.interp(radius, profile.texture.frequencies_per_mm, mean))
    amplitude[0, 0] = 0
    drawn = np.stack([
        scipy.fft.ifft2(amplitude * scipy.fft.fft2(rng.normal(size=(size, size)))).real
        for _ in range(1000)
    ])  # fmt: skip

    def best(volume: CTVolume) -> list[float]:
        spectra = patch_spectra(
            volume, profile.texture.frequencies_per_mm, size, "body", mask=body(volume.hu)
        )
        found = []
        for k, row, column in spectra.corners[:200]:
            patch = volume.hu[k, row : row + size, column : column + size].astype(float)
            patch = patch - patch.mean()
            norm = np.linalg.norm(drawn.reshape(1000, -1), axis=1) * np.linalg.norm(patch)
            found.append(float((drawn.reshape(1000, -1) @ patch.ravel() / norm).max()))
        return found

    for name, volume in (("the patient", mine), ("another", other)):
        values = best(volume)
        print(f"{name}: mean {np.mean(values):.3f}, highest {max(values):.3f} of {len(values)}")
    stored = sum(p.sums.shape[0] * p.sums.shape[1] * p.sums.shape[2] * (p.sums.shape[2] + 1) // 2
                 for p in profile.moments().values())  # fmt: skip
    print(f"{stored} sums, {sum(int((p.counts > 0).sum()) for p in profile.moments().values())} "
          f"cells held, {mine.hu.size} pixels")  # fmt: skip


def filtered(volume: CTVolume, log_gain: float) -> CTVolume:
    """Volume with amplitudes changed by a gain at .375 cycles/mm, with the square of frequency."""
    f = np.arange(0, 1.5, 0.025)
    return volume.with_hu(np.rint(filter_slices(volume, f, log_gain * (f / 0.375) ** 2)))


def constancy(args: argparse.Namespace) -> None:
    """Figures of unchanged and of changed scanners against profiles of 20 patients."""
    volumes = {
        "unchanged": patients_in(args.scans),
        **{name: patients_in(Path(folder)) for name, folder in
           (text.split("=", 1) for text in args.now)},
    }  # fmt: skip
    few = volumes["unchanged"][-40:]
    volumes |= {
        "sharper": [filtered(volume, np.log(1.15)) for volume in few],
        "softer": [filtered(volume, -np.log(1.15)) for volume in few],
        "8 HU more": [volume.with_hu(volume.hu + np.float32(8)) for volume in few],
    }
    profiles = {
        name: [measure_profile([volume]) for volume in patients]
        for name, patients in volumes.items()
    }
    rng = np.random.default_rng(0)
    for name, patients in profiles.items():
        values: dict[str, list[float]] = {}
        changed = 0
        for _ in range(args.draws):
            order = rng.permutation(len(profiles["unchanged"]) - (0 if name == "unchanged" else 40))
            then = total([profiles["unchanged"][i] for i in order[:20]]).shareable()
            of = order[20:40] if name == "unchanged" else rng.permutation(len(patients))[:20]
            result = compare_profiles(then, total([patients[i] for i in of]))
            changed += not result.is_constant
            for figure in result.figures:
                values.setdefault(figure.name, []).append(figure.value)
        row = {
            key: f"{np.nanmean(v):.3f} ± {np.nanstd(v):.3f} ({np.nanmin(v):.3f} to "
            f"{np.nanmax(v):.3f})"
            for key, v in values.items()
        }
        print(f"{name}: changed in {changed} of {args.draws}; {json.dumps(row)}", flush=True)


def fit(args: argparse.Namespace) -> None:
    """Gains and concordance of models from images and from profiles."""
    sides = sorted(folder.name for folder in (args.data / "test").iterdir() if folder.is_dir())
    train, test = (
        [by_patient(args.data / part / side) for side in sides] for part in ("train", "test")
    )
    row = find_method("spectrum")
    whole = [measure_profile(volumes) for volumes in train]
    shared = [profile.shareable(args.few) for profile in whole]
    kept = [round(a.share_kept(b), 3) for a, b in zip(shared, whole, strict=True)]
    request = TrainingRequest("spectrum", Path(), row.settings)
    models = {
        "images": row.fit(*train, request),
        "profiles": row.fit(*(profile.side for profile in shared), request),
        "one profile": row.fit(train[0], shared[1].side, request),
    }
    for name, bundle in models.items():
        gains = {
            key: round(float(np.abs(bundle.weights[key] - models["images"].weights[key]).max()), 4)
            for key in ("noise_log_gain", "structure_log_gain")
        }
        line: dict[str, Any] = {"from": name, "patches_kept": kept, "largest_difference": gains}
        for way, direction in enumerate(("a2b", "b2a")):
            mapping = row.load(bundle, direction, RunOptions())
            source, target = test[way], test[1 - way]
            made = [volume.with_hu(np.rint(mapping(volume))) for volume in source]
            found = measured(made, target, args.rois)
            keys = ("ccc_across", "ccc_within", "psnr_db", "noise")
            line[direction] = {key: round(found[key], 4) for key in keys}
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = {
        "bodies": simulate_bodies, "membership": membership, "reconstruction": reconstruction,
        "constancy": constancy, "fit": fit,
    }  # fmt: skip
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bodies", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--kernel", default=KERNEL)
    parser.add_argument("--mas-share", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--now", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--rois", type=int, default=120)
    args = parser.parse_args()
    tasks[args.task](args)


if __name__ == "__main__":
    main()
