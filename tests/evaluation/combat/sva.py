"""ComBat of R's sva on simulated patients, and the frozen output that is compared without R.

python -m tests.evaluation.combat.sva      writes sva_reference.json anew (needs r-bioc-sva)
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
REFERENCE = HERE / "sva_reference.json"

VARIANTS: dict[str, tuple[bool, str | None, tuple[str, ...]]] = {
    "plain": (False, None, ()),
    "covariates": (False, None, ("age", "sex")),
    "mean only": (True, None, ("age",)),
    "reference": (False, "B", ("age", "sex")),
    "reference, mean only": (True, "C", ()),
}
"""mean_only, reference and covariates of each variant."""


@dataclass(frozen=True)
class Patients:
    """Simulated patients: batch, age, sex and features that depend on all of them."""

    table: pd.DataFrame

    @property
    def features(self) -> list[str]:
        return [name for name in self.table.columns if name not in ("batch", "age", "sex")]

    @property
    def values(self) -> np.ndarray:
        return self.table[self.features].to_numpy(dtype=float)

    def covariates(self, names: tuple[str, ...]) -> dict[str, list[object]]:
        return {name: self.table[name].tolist() for name in names}


def simulated(
    counts: tuple[int, ...] = (11, 14, 9),
    features: int = 6,
    seed: int = 0,
    digits: int | None = None,
) -> Patients:
    rng = np.random.default_rng(seed)
    batch = np.repeat(list("ABCDEFG"[: len(counts)]), counts)
    number = np.repeat(np.arange(len(counts)), counts)
    age = rng.integers(40, 85, len(batch)) + 4 * number
    sex = np.where(rng.uniform(size=len(batch)) < 0.35 + 0.1 * number, "F", "M")
    sex[:2] = "F", "M"
    shift = rng.normal(0, 1.5, (len(counts), features))
    scale = rng.uniform(0.5, 2.0, (len(counts), features))
    effects = rng.normal(0, 0.05, features), rng.normal(0, 1, features)
    noise = rng.normal(size=(len(batch), features))
    values = (age - 60)[:, None] * effects[0] + (sex == "F")[:, None] * effects[1]
    values = values + shift[number] + scale[number] * noise
    values = values * 10.0 ** rng.integers(-2, 4, features) + rng.normal(0, 50, features)
    if digits is not None:
        values = np.array([[float(f"{cell:.{digits}g}") for cell in row] for row in values])
    names = [f"original_glcm_F{i}" for i in range(features)]
    return Patients(
        pd.DataFrame(
            {"batch": batch, "age": age, "sex": sex, **dict(zip(names, values.T, strict=True))}
        )
    )


def sva_combat(patients: Patients, folder: Path) -> dict[str, np.ndarray]:
    """What `sva::ComBat` returns for each of the variants, by Rscript."""
    patients.table.to_csv(folder / "in.csv", index=False, na_rep="NA")
    variants = [
        f"{str(mean_only).upper()}:{reference or 'none'}:{','.join(covariates) or 'none'}"
        for mean_only, reference, covariates in VARIANTS.values()
    ]
    subprocess.run(
        ["Rscript", str(HERE / "sva_combat.R"), str(folder / "in.csv"), str(folder), *variants],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return {
        name: pd.read_csv(folder / f"{i}.csv").to_numpy(dtype=float)
        for i, name in enumerate(VARIANTS, start=1)
    }


def has_sva() -> bool:
    """Whether R and its package sva are installed."""
    if shutil.which("Rscript") is None:
        return False
    command = ["Rscript", "-e", "quit(status = !nzchar(system.file(package = 'sva')))"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> None:
    import tempfile

    patients = simulated(digits=6)
    with tempfile.TemporaryDirectory() as folder:
        output = sva_combat(patients, Path(folder))
    lines = [
        '"command": "python -m tests.evaluation.combat.sva"',
        '"made_by": "sva::ComBat 3.46.0 of Debian\'s r-bioc-sva"',
        f'"table": {patients.table.to_json(orient="split", index=False)}',
        *(f'"{name}": {json.dumps(values.round(9).tolist())}' for name, values in output.items()),
    ]
    REFERENCE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
