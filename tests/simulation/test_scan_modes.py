"""Whole scans in every mode: the same bytes whatever the workers, headers that tell the mode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import UsageError
from cvsct.io.dicom.simulated import write_simulated
from cvsct.io.read import read_all
from cvsct.simulation.benchmark import PLAIN_MODE, TEST, Scan, ScanMode, SimulationOptions
from cvsct.simulation.plan import plan
from cvsct.simulation.run import run_simulation

OWN = "own.toml"
FULL = ScanMode(table=True, arms="side", tube_current=True, helical=True)
DEFINITION = """
base = "ge-revolution-evo"
tone_hu = [[-1000, 0], [0, 3], [100, 5]]

[geometry]
channels = 222
channel_mm = 4.0956
views = 120

[helical]
pitch = 0.9

[kernels.Standard]
cutoff_lp_mm = 0.10
exponent = 2.5

[tube_current]
noise_index = 6.0
noise_index_kernel = "Standard"
noise_index_thickness_mm = 2.5
minimum_ma = 10
maximum_ma = 5000

[scatter]
ratio = 0.08
forward_rad = 0.1
multiple_rad = 0.3
multiple_water_mm = 200.0
residue = 0.1
correction_noise = 0.05

[beam_hardening]
bone_correction = 0.8
"""


@pytest.fixture
def own_scanner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A coarse scanner with every section, as a user's file beside the output."""
    (tmp_path / OWN).write_text(DEFINITION)
    monkeypatch.chdir(tmp_path)
    return OWN


def scans_of(scanner: str, mode: ScanMode, *thicknesses_mm: float) -> tuple[Scan, ...]:
    (template,) = (s for s in plan("tiny", 0, parts=(TEST,)) if s.scanner.startswith("ge"))
    return tuple(
        replace(
            template, number=i, scanner=scanner, thickness_mm=mm, first_mm=-20.0, slices=2,
            mode=mode, matrix_px=64, raster_px=128, kvps=(120.0,), mas=(100.0,),
            kernels=("Standard",),
        )
        for i, mm in enumerate(thicknesses_mm)
    )  # fmt: skip


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.dcm")}


@pytest.mark.slow
def test_thin_and_thick_series_of_a_helical_scan_are_the_same_whatever_the_workers(
    own_scanner: str, tmp_path: Path
) -> None:
    scans = scans_of(own_scanner, FULL, 1.25, 2.5)
    for workers in (1, 2):
        result = run_simulation(
            scans, {}, tmp_path / str(workers), write_simulated, workers=workers
        )
        assert not result.failed
    contents = content(tmp_path / "1")
    assert len(contents) == 4
    assert contents == content(tmp_path / "2")
    thin, thick = sorted(read_all(tmp_path / "1"), key=lambda volume: volume.geometry.thickness_mm)
    header = thick.headers[0]
    assert header.ScanOptions == "HELICAL MODE"
    assert float(header.SpiralPitchFactor) == 0.9
    assert header.ExposureModulationType == "XYZ_EC"
    loads = [float(header.ExposureInuAs) for header in (*thin.headers, *thick.headers)]
    assert len(set(loads)) > 1
    inside = np.s_[:, 24:40, 24:40]
    assert thick.hu[inside].mean() == pytest.approx(thin.hu[inside].mean(), abs=40)
    assert thick.hu[:, :2, 28:36].mean() == pytest.approx(-1000, abs=60)


def test_table_and_arms_are_seen_and_shift_no_slice(own_scanner: str, tmp_path: Path) -> None:
    images = {}
    for name, mode in (("plain", PLAIN_MODE), ("around", ScanMode(table=True, arms="side"))):
        run_simulation(
            scans_of(own_scanner, mode, 5.0), {}, tmp_path / name, write_simulated, workers=1
        )
        (volume,) = read_all(tmp_path / name)
        images[name] = volume.hu
    more = images["around"] - images["plain"]
    assert more[:, -14:].max() > 100, "the table lies at the back of the image"
    lung = images["plain"] < -900
    body = images["plain"] > -200
    assert abs(np.median(more[body])) < 30
    assert lung.any()


def test_a_mode_that_a_scanner_lacks_is_refused_by_name() -> None:
    part = "pairs/denoised-quiet-fbp-noisy"
    for mode, scanner, section in (
        (ScanMode(helical=True), "denoised-quiet", "helical"),
        (ScanMode(tube_current=True), "fbp-noisy", "tube_current"),
    ):
        with pytest.raises(UsageError, match=f"{scanner} has no section {section}"):
            plan("tiny", 0, SimulationOptions(mode=mode), (part,))
    with pytest.raises(UsageError, match="arms 'down'; choose one of up, side"):
        ScanMode(arms="down")


def test_a_plain_scans_record_knows_nothing_of_modes() -> None:
    (scan, *_) = plan("tiny", 0)
    assert "mode" not in scan.record()
    assert replace(scan, mode=ScanMode(table=True)).record()["mode"]["table"] is True
    assert "table" not in SimulationOptions().record()
    assert SimulationOptions(mode=ScanMode(arms="side")).record()["arms"] == "side"
