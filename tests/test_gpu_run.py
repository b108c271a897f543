"""scripts/gpu_run.sh as a process, on the CPU with networks of a few filters."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from cvsct.models.bundle import CHECKPOINT_FILE, Bundle
from cvsct.training.record import LOG

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
TINY = (
    *("generator.width=4", "generator.blocks=1", "generator.hold_low_px=2", "patch_px=24"),
    *("discriminator.widths=[8,8]", "discriminator.strides=[2,1]", "batch=2"),
    *('domain.layers=["relu2_1"]', "validation_patches=8"),
    *("precision=fp32", "schedule.save_steps=1", "health.dead_steps=0"),
)
FOREVER = 1_000_000


class Machine:
    """A machine that calls of the script share; each call gets an empty OUT, as on a lent one."""

    def __init__(self, folder: Path, scans: Path) -> None:
        self.folder, self.calls = folder, 0
        self.scans: tuple[object, ...] = ("--source", scans / "sharp", "--target", scans / "soft")
        self.out = folder / "out-0"

    def __call__(self, *words: object, **variables: str) -> tuple[int, str]:
        self.calls += 1
        self.out = self.folder / f"out-{self.calls}"
        settings = [word for setting in TINY for word in ("--set", setting)]
        before = [*self.scans, "--work", self.folder / "work", *settings]
        done = subprocess.run(
            ["bash", str(SCRIPTS / "gpu_run.sh"), *map(str, [*before, *words])],
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

    def said(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())


@pytest.fixture
def machine(tmp_path: Path, scans: Path) -> Machine:
    return Machine(tmp_path, scans)


def test_time_ends_a_training_the_next_call_goes_on_and_then_comes_the_next_model(
    machine: Machine, tmp_path: Path
) -> None:
    names = tmp_path / "models.txt"
    names.write_text("cyclegan:cpu # the baseline\n\nspectrum:cpu\n")
    words = ("--list", names, "--device", "cpu")
    model = tmp_path / "work" / "models" / "cyclegan-cpu"
    minutes = 0.15
    for _ in range(4):  # a busy machine may need longer to its first step
        code, said = machine(*words, "--no-speed", "--minutes", minutes, "--max-steps", FOREVER)
        assert code == 0, said
        steps = (
            machine.said("cyclegan-cpu.json")["training"]["steps"]
            if (model / CHECKPOINT_FILE).exists()
            else 0
        )
        if steps:
            break
        minutes *= 2
    assert f"cyclegan-cpu: stopped after {steps} steps" in said
    assert "left: cyclegan-cpu, spectrum-cpu" in said
    assert machine.said("report.json")["models"] == {
        "cyclegan-cpu": "stopped",
        "spectrum-cpu": "to do",
    }
    weights = load_file(machine.out / "cyclegan-cpu.safetensors")
    assert {array.dtype.name for array in weights.values()} == {"float32"}
    assert (machine.out / "cyclegan-cpu.checkpoint.pt").exists()
    stopped = machine.out

    code, said = machine(*words, "--no-speed", "--minutes", 5, "--max-steps", steps + 2)
    assert code == 0, said
    assert "cyclegan-cpu goes on" in said
    assert f"cyclegan-cpu: finished after {steps + 2} steps" in said
    logged = [json.loads(line)["step"] for line in (model / LOG).read_text().splitlines()]
    assert logged == list(range(1, steps + 3))
    with tarfile.open(machine.out / "cyclegan-cpu.tar.gz") as archive:
        archive.extractall(tmp_path / "home", filter="data")
    assert Bundle.read(tmp_path / "home" / "cyclegan-cpu").training["steps"] == steps + 2
    assert not (tmp_path / "home" / "cyclegan-cpu" / CHECKPOINT_FILE).exists()
    assert len(list(machine.out.iterdir())) <= 8

    code, said = machine(*words, "--no-speed", "--minutes", 5)
    assert code == 0, said
    assert "cyclegan-cpu: finished already, skipped" in said
    assert "spectrum-cpu: finished" in said
    assert "nothing is left to train" in said

    other = Machine(tmp_path / "other", tmp_path)
    other.scans = machine.scans
    early = ("--earlier", stopped, "--max-steps", steps + 1, "--no-speed", "--minutes", 5)
    code, said = other("cyclegan:cpu", "--device", "cpu", *early)
    assert code == 0, said
    assert "takes up the checkpoint" in said
    assert f"finished after {steps + 1} steps" in said


def test_speed_is_measured_once(machine: Machine) -> None:
    words = ("spectrum:cpu", "--device", "cpu", "--quick", "--slice-px", 32)
    code, said = machine(*words)
    assert code == 0, said
    speed = machine.said("report.json")["speed"]
    assert {"ms_per_slice", "gflop", "share_of_peak"} <= speed["inference"][0].keys()
    assert speed["training_step"]["rows"][0]["wall_s"] > 0
    assert "ms a slice of 32 px" in said
    code, said = machine(*words)
    assert code == 0, said
    assert "measuring" not in said
    assert machine.said("report.json")["speed"] == speed


def test_a_training_that_fails_is_told_and_not_tried_again(machine: Machine) -> None:
    words = ("cyclegan:cpu", "spectrum:cpu", "--device", "cpu", "--no-speed")
    code, said = machine(*words, "--set", "patch_px=4096")
    assert code == 1
    assert "cyclegan-cpu failed: " in said
    assert "--retry" in said
    assert machine.said("cyclegan-cpu.json")["state"] == "failed"
    code, said = machine(*words)
    assert code == 0, said
    assert "cyclegan-cpu: failed already, skipped" in said
    assert "spectrum-cpu: finished" in said


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["cyclegan:cpu"], 1, "sees no CUDA GPU"),
        (["cvsct:cpu", "--device", "cpu"], 1, "needs ImageNet VGG16 weights"),
        (["cvsct:gpu", "--device", "cpu"], 2, "presets paper, stable, cpu"),
        (["cvsct", "--device", "cpu"], 2, "is no METHOD:PRESET"),
        ([], 2, "no model to train"),
        (["cvsct:cpu", "--wheels", "/nowhere"], 2, "/nowhere: no such folder"),
    ],
)
def test_what_is_missing_is_said_before_anything_begins(
    machine: Machine, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    nothing = {"CUDA_VISIBLE_DEVICES": "", "CVSCT_VGG_WEIGHTS": "", "TORCH_HOME": str(tmp_path)}
    found, said = machine(*words, **nothing)
    assert (found, says in said) == (code, True), said
    assert "Traceback" not in said


def test_missing_libraries_are_named() -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(SCRIPTS / "gpu_run.py"), "cvsct:stable"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert all(name in done.stderr for name in ("numpy", "torch", "numba", "xraydb", "--wheels"))


def test_wheels_are_unpacked_beside_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    checks = importlib.import_module("gpu_checks")
    wheel, site = tmp_path / "wheels" / "cvsct_absent-1.0-py3-none-any.whl", tmp_path / "site"
    wheel.parent.mkdir()
    about = "cvsct_absent-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cvsct_absent.py", "VALUE = 3\n")
        archive.writestr(f"{about}/METADATA", "Name: cvsct-absent\nVersion: 1.0\n")
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{about}/WHEEL", tag)
        archive.writestr(f"{about}/RECORD", "")
    monkeypatch.setattr(checks, "NEEDED", ("numpy", "cvsct_absent"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    checks.check_packages(wheel.parent, site, simulates=False)
    assert importlib.import_module("cvsct_absent").VALUE == 3
    assert os.environ["PYTHONPATH"].startswith(str(site))


def test_what_is_too_large_stays_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    results = importlib.import_module("gpu_results")
    (tmp_path / "m.checkpoint.pt").write_bytes(bytes(17 * 2**20))
    (tmp_path / "m.log").write_text("done")
    (note,) = results._without_large(tmp_path, "m")
    assert "17 MiB, above 16: it does not come back" in note
    assert "begins anew" in note
    assert [path.name for path in tmp_path.iterdir()] == ["m.log"]


@pytest.mark.slow
def test_scans_are_simulated_where_none_are_given(machine: Machine) -> None:
    machine.scans = ("--scale", "tiny", "--bodies", "1")
    code, said = machine("spectrum:cpu", "--device", "cpu", "--no-speed", "--minutes", 5)
    assert code == 0, said
    assert "simulating, scale tiny, seed 0" in said
    assert "spectrum-cpu: finished" in said
