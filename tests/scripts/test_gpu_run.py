"""scripts/gpu_run.sh as a process, on the CPU with networks of a few filters."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from cvsct.model.bundle import CHECKPOINT_FILE, Bundle
from cvsct.training.logging import LOG

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    *("generator.width=4", "generator.blocks=1", "generator.hold_low_px=2", "patch_px=24"),
    *("discriminator.widths=[8,8]", "discriminator.strides=[2,1]", "batch=2"),
    *('domain.layers=["relu2_1"]', "validation_patches=8"),
    *("precision=fp32", "schedule.save_steps=1", "health.dead_steps=0"),
)
SET_TINY = [word for setting in TINY for word in ("--set", setting)]


class Machine:
    """A machine that calls of the script share; each call gets an OUT of its own."""

    def __init__(self, folder: Path, scans: Path) -> None:
        self.folder, self.scans, self.calls = folder, scans, 0
        self.out = folder / "out-0"

    def __call__(self, model: str, *words: object, cpu: bool = True, **variables: str) -> Any:
        self.calls += 1
        self.out = self.folder / f"out-{self.calls}"
        device = ["--device", "cpu"] if cpu else []
        before = [model, self.scans / "sharp", self.scans / "soft", "--work", self.folder / "work"]
        done = subprocess.run(
            ["bash", ROOT / "scripts" / "gpu_run.sh", *map(str, [*before, *device, *words])],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHON": sys.executable,
                "OUT": str(self.out),
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    def steps(self) -> list[int]:
        """Steps in the log of losses that came back."""
        lines = gzip.decompress((self.out / f"{LOG}.gz").read_bytes()).decode().splitlines()
        return [json.loads(line)["step"] for line in lines]


@pytest.fixture
def machine(tmp_path: Path, scans: Path) -> Machine:
    return Machine(tmp_path, scans)


@pytest.mark.slow
def test_time_ends_a_training_and_the_same_call_goes_on_to_the_finished_model(
    machine: Machine, tmp_path: Path
) -> None:
    minutes = 0.2
    for _ in range(4):  # a busy machine may need longer to its first step
        code, said = machine(
            "cyclegan:cpu", "--minutes", minutes, "--model-minutes", 99, "--", *SET_TINY
        )
        if code == 0:
            break
        assert "the time was up before a step was saved" in said
        minutes *= 2
    assert code == 0, said
    steps = machine.steps()[-1]
    assert f"stopped by the time after {steps} steps" in said
    weights = load_file(machine.out / "weights.safetensors")
    assert {array.dtype.name for array in weights.values()} == {"float32"}
    assert not (machine.out / "model.tar.gz").exists()

    last = ("--minutes", 5, "--", *SET_TINY, "--max-steps", steps + 2)
    code, said = machine("cyclegan:cpu", *last)
    assert code == 0, said
    assert machine.steps() == list(range(1, steps + 3))
    with tarfile.open(machine.out / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "home", filter="data")
    model = tmp_path / "home" / "cyclegan-cpu-0"
    assert Bundle.read(model).training["steps"] == steps + 2
    assert not (model / CHECKPOINT_FILE).exists()
    manifest = json.loads((machine.out / "inference-fp32.json").read_text())
    assert manifest["figures"]["slices_per_s"] > 0
    assert "inference fp32" in said

    code, said = machine("cyclegan:cpu", *last)
    assert code == 0, said
    assert "finished already" in said
    assert (machine.out / "model.tar.gz").exists()


def test_the_schedule_is_stretched_to_the_time(machine: Machine, tmp_path: Path) -> None:
    """Steps of the preset do not end the training before its minutes do."""
    words = ("--minutes", 5, "--model-minutes", 0.02, "--", *SET_TINY, "--set", "max_steps=1")
    code, said = machine("cyclegan:cpu", *words)
    assert code == 0, said
    assert len(machine.steps()) > 1


def test_a_classical_method_is_fitted_and_measured(machine: Machine, tmp_path: Path) -> None:
    code, said = machine("spectrum:cpu", "--minutes", 5)
    assert code == 0, said
    with tarfile.open(machine.out / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "home", filter="data")
    assert Bundle.read(tmp_path / "home" / "spectrum-cpu-0").method == "spectrum"
    assert (machine.out / "inference-fp32.json").exists()


def test_a_training_that_fails_is_told_with_its_log(machine: Machine) -> None:
    code, said = machine("cyclegan:cpu", "--", *SET_TINY, "--set", "patch_px=4096")
    assert code == 1
    assert "training failed: " in said
    assert (machine.out / "train.log").read_text().strip().splitlines()[-1] in said


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["cyclegan"], 2, "usage: METHOD:PRESET"),
        (["cyclegan:cpu", "--wheels", "/nowhere"], 2, "/nowhere: no such folder"),
        (["cyclegan:cpu", "--minuets", "9"], 2, "unknown option --minuets"),
        (["cyclegan:cpu", "--minutes"], 2, "--minutes needs a value"),
        (["cyclegan:gpu"], 1, "training failed: "),
        (["cvsct:cpu"], 1, "needs ImageNet VGG16 weights"),
    ],
)
def test_what_is_missing_is_said(
    machine: Machine, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    nothing = {"CVSCT_VGG_WEIGHTS": "", "TORCH_HOME": str(tmp_path)}
    found, said = machine(*words, **nothing)
    assert (found, says in said) == (code, True), said
    assert "Traceback" not in said


def test_a_machine_without_a_gpu_is_refused(machine: Machine) -> None:
    code, said = machine("spectrum:cpu", cpu=False, CUDA_VISIBLE_DEVICES="")
    assert code == 1
    assert "torch sees no CUDA GPU" in said
    assert "--wheels" in said
