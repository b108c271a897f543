"""`cvsct simulate`: its words, and its exit codes; test_demo.py has the real physics."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from cvsct.core.pairing import pair_volumes
from cvsct.io.read import read_all
from cvsct.simulation.benchmark import GE, SIEMENS
from cvsct.simulation.render_task import Builders
from cvsct.simulation.run import run_simulation
from tests.support.commands import Run
from tests.support.fake_scanner import FAILING, FAKE


def use(builders: Builders, monkeypatch: pytest.MonkeyPatch) -> None:
    faked = partial(run_simulation, builders=builders)
    monkeypatch.setattr("cvsct.api.simulate.run_simulation", faked)


def test_it_writes_the_benchmark_and_goes_on_with_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(FAKE, monkeypatch)
    words = ["simulate", "--out", tmp_path / "b", "--scale", "tiny", "--workers", 1]
    code, printed, err = run(*words)
    assert code == 0, err
    assert "42 images in 16 series of 8 bodies" in printed
    assert "42 images: needs 2 MB" in err
    assert run(*words)[0] == 0
    for options, says in (
        (["--seed", 1], "seed 0 there, 1 now"),
        (["--mas", 50], "mas 100.0 there, 50.0 now"),
        (["--match-dose"], "match_dose False there, True now"),
        (["--parenchyma"], "parenchyma False there, True now"),
        (["--shift-px", 1], "shift_px 0.0 there, 1.0 now"),
        (["--fov-mm", 300], "fov_mm 350.0 there, 300.0 now"),
    ):
        code, _, err = run(*words, *options)
        assert code == 2
        assert says in err


def test_pairs_to_learn_from_pair_when_they_are_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice with that of its body and tube voltage on the other scanner."""
    use(FAKE, monkeypatch)
    code, printed, err = run(
        *("simulate", "--out", tmp_path / "b", "--scale", "tiny", "--workers", 1),
        *("--parts", "paired"),
    )
    assert code == 0, err
    assert "18 images in 6 series of 2 bodies" in printed
    ge, siemens = (read_all(tmp_path / "b" / "paired" / scanner) for scanner in (GE, SIEMENS))
    pairs = pair_volumes(ge, siemens)
    assert len({pair.second for pair in pairs}) == len(ge) == len(siemens) == 3
    for pair in pairs:
        assert pair.slices == ((0, 0), (1, 1), (2, 2))
        assert ge[pair.first].acquisition.kvp == siemens[pair.second].acquisition.kvp
        assert ge[pair.first].patient == siemens[pair.second].patient


def test_doses_are_matched_on_request(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(FAKE, monkeypatch)
    code, _, err = run(
        "simulate", "--out", tmp_path / "b", "--scale", "tiny", "--workers", 1, "--match-dose"
    )
    assert code == 0, err
    doses: dict[float, set[float]] = {}
    for volume in read_all(tmp_path / "b" / "train"):
        dose = round(float(volume.headers[0].CTDIvol), 6)
        doses.setdefault(volume.acquisition.kvp, set()).add(dose)
    assert {kvp: len(kvp_doses) for kvp, kvp_doses in doses.items()} == {80: 1, 120: 1}


def test_a_failing_scan_is_exit_code_3(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(FAILING, monkeypatch)
    code, _, err = run("simulate", "--out", tmp_path / "b", "--scale", "tiny", "--workers", 1)
    assert code == 3
    assert "patient-0005_5mm: ValueError: no bones" in err


def test_an_unknown_scale_or_a_folder_in_use_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, err = run("simulate", "--out", tmp_path / "b", "--scale", "huge")
    assert code == 2
    assert "'huge' is not one of 'tiny', 'demo', 'paper'" in err
    (tmp_path / "mine.txt").write_text("keep")
    code, _, err = run("simulate", "--out", tmp_path, "--scale", "tiny")
    assert code == 2
    assert "exists already" in err


def test_without_numba_the_extra_is_named(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['numba'] = None; from cvsct.cli import main; "
        f"main(['simulate', '--out', {str(tmp_path / 'b')!r}, '--scale', 'tiny'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "simulate needs numba, which is not installed" in done.stderr
    assert "pip install 'cvsct[simulate]'" in done.stderr
    assert not (tmp_path / "b").exists()
