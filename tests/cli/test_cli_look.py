"""Commands that look and change nothing: `inspect`, `models`, `doctor`."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from cvsct.cli import installation, machine
from cvsct.core.errors import EXTRA_MODULES, ModelError, UsageError
from cvsct.model import pretrained as bundled
from cvsct.model.bundle import Bundle, Domain
from tests.conftest import make_volume
from tests.support.commands import Run
from tests.support.dicom_files import COLUMNS, ROWS, write_series


def _gap(ds: Dataset, i: int) -> None:
    if i == 3:
        ds.ImagePositionPatient = [-100, -120, 20]


def _named_badly(ds: Dataset, i: int) -> None:
    ds.ConvolutionKernel = "B\x1b[31m"


def test_inspect_tells_what_the_headers_say_and_no_patient(run: Run, tmp_path: Path) -> None:
    write_series(tmp_path / "Anna" / "one", 4, series="1.2.1")
    write_series(tmp_path / "Anna" / "two", 1, series="1.2.2")
    code, printed, err = run("inspect", tmp_path, "--json")
    assert code == 0, err
    first, second = json.loads(printed)
    assert first.pop("patient") == second["patient"] != ""
    assert first == {
        "path": "Anna/one", "series_uid": "1.2.1", "readable": True, "refused": "", "files": 4,
        "manufacturer": "Maker", "model": "Scanner", "kernel": "K1", "kvp": 120.0,
        "slices": 4, "rows": ROWS, "columns": COLUMNS, "pixel_mm": [0.7, 0.7], "spacing_mm": 5.0,
        "thickness_mm": 5.0, "padded": False, "notes": [], "study_date": "2020-01-02",
    }  # fmt: skip
    assert (second["slices"], second["spacing_mm"]) == (1, None)
    code, table, err = run("inspect", tmp_path)
    _, group, _, head, row, _ = table.splitlines()
    assert group.split() == ["Maker", "Scanner", "K1", "120", "5", "1", "2", "0", "5", "2020-01"]
    assert head.split()[:3] == ["series", "scanner", "kernel"]
    assert row.split() == f"1 Maker Scanner K1 120 4 {ROWS} x {COLUMNS} 0.7 5 5 yes".split()
    for private in ("ller", "P1", "1960", "Hospital"):
        assert private not in printed + table + err
    assert "Anna" not in table + err


def test_inspect_goes_on_after_what_it_must_refuse(run: Run, tmp_path: Path) -> None:
    write_series(tmp_path / "gap", series="1.2.1", change=_gap)
    code, printed, err = run("inspect", tmp_path, "--json")
    assert code == 1
    (refused,) = json.loads(printed)
    assert not refused["readable"]
    assert "gap of 10.0 mm" in refused["refused"]
    assert (refused["kernel"], refused["slices"], refused["spacing_mm"]) == ("K1", 4, None)
    write_series(tmp_path / "good", series="1.2.2", change=_named_badly)
    (tmp_path / "broken.dcm").write_bytes(b"")
    code, table, err = run("inspect", tmp_path)
    assert code == 3
    _, series = table.split("\n\n")
    assert [line.split()[-1] for line in series.splitlines()[1:]] == ["no", "yes", "no"]
    assert "series 1: " in err
    assert "series 3: broken.dcm: not a DICOM file" in err
    assert "\x1b" not in table
    assert "B?[31m" in table
    code, _, err = run("inspect", tmp_path / "nothing")
    assert (code, "no such file or folder" in err) == (2, True)


def test_inspect_writes_a_table_with_paths_and_what_was_left_out(run: Run, tmp_path: Path) -> None:
    tree = tmp_path / "in"
    write_series(tree / "Anna" / "one", 4, series="1.2.1")
    write_series(tree / "gap", series="1.2.2", change=_gap)
    (tree / "Anna" / "letter.pdf").write_bytes(b"%PDF-1.4 letter")
    code, _, err = run("inspect", tree, "--csv", tmp_path / "found.csv")
    assert code == 3, err
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    told = [(row["path"], row["status"], row["slices"]) for row in rows]
    assert told == [
        ("Anna/one", "readable", "4"), ("gap", "refused", "4"),
        ("Anna/letter.pdf", "left out", ""),
    ]  # fmt: skip
    assert "gap of 10.0 mm" in rows[1]["reason"]
    assert (tmp_path / "found.csv").stat().st_mode & 0o777 == 0o600


def test_a_census_counts_by_protocol(run: Run, tmp_path: Path) -> None:
    def of(patient: str, kernel: str, day: str):  # type: ignore[no-untyped-def]
        def change(ds: Dataset, i: int) -> None:
            ds.PatientID, ds.ConvolutionKernel, ds.StudyDate = patient, kernel, day

        return change

    for number, about in enumerate(
        [("P1", "K1", "20190105"), ("P1", "K1", "20210306"), ("P2", "K1", "20200101"),
         ("P2", "K9", "20200101")]
    ):  # fmt: skip
        write_series(tmp_path / str(number), series=f"1.2.{number + 1}", change=of(*about))
    code, table, err = run("inspect", tmp_path)
    assert code == 0, err
    census = [line.split() for line in table.split("\n\n")[0].splitlines()[1:]]
    assert census == [
        ["Maker", "Scanner", "K1", "120", "5", "2", "3", "0", "12", "2019-01", "to", "2021-03"],
        ["Maker", "Scanner", "K9", "120", "5", "1", "1", "0", "4", "2020-01"],
    ]


def test_models_that_come_with_the_package_go_by_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "ROOT", tmp_path / "bundled")
    assert run("models", "--json")[:2] == (0, "[]\n")
    assert "no models come with this version" in run("models")[1]
    with pytest.raises(ModelError, match="'a'; none come with this version"):
        bundled.bundled("a")
    domain = Domain.of([make_volume(np.zeros((1, 4, 4)))])
    place = tmp_path / "bundled" / "maker-to-maker"
    Bundle("input", {}, {}, domain, domain).write(place)
    (tmp_path / "bundled" / "unfinished").mkdir()
    scanner = "Maker Scanner, kernel K1, 120 kVp"
    assert json.loads(run("models", "--json")[1]) == [
        {"name": "maker-to-maker", "method": "input", "source": scanner, "target": scanner}
    ]
    assert run("models")[1].splitlines()[1].split()[:3] == ["maker-to-maker", "input", "Maker"]
    assert bundled.model_folder(Path("maker-to-maker")) == place
    assert bundled.model_folder(tmp_path) == tmp_path
    for given in (Path("another"), tmp_path / "maker-to-maker"):
        with pytest.raises(UsageError, match=r"no such model folder.*\(maker-to-maker\)"):
            bundled.model_folder(given)


def test_a_part_of_a_models_name_is_answered_with_the_name(run: Run) -> None:
    code, _, err = run("models", "ge-lung")
    assert code == 2
    assert "did you mean 'ge-lung-siemens-bl64-" in err


def test_the_program_alone_prints_its_help_and_no_error(run: Run) -> None:
    code, printed, err = run()
    assert code == 2
    assert "Usage: cvsct" in printed + err
    assert "cvsct: error" not in err


def test_a_folder_of_a_bundled_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = Domain.of([make_volume(np.zeros((1, 4, 4)))])
    Bundle("input", {}, {}, domain, domain).write(tmp_path / "bundled" / "mine")
    monkeypatch.setattr(bundled, "ROOT", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    assert bundled.model_folder(Path("mine")) == tmp_path / "bundled" / "mine"
    (tmp_path / "mine").mkdir()
    assert bundled.model_folder(Path("mine")) == Path("mine")


def test_doctor_finds_this_installation_well(run: Run, vgg_weights: Path) -> None:
    code, printed, err = run("doctor")
    assert code == 0, err
    told = dict(re.split(r" {2,}", line, maxsplit=1) for line in printed.splitlines()[:-1])
    assert f"numpy {np.__version__}" in told["core"]
    assert importlib.metadata.version("torch") in told["torch"]
    assert "bf16" in told["torch"]
    assert "CPU" in told["OpenVINO"]
    assert "usable of" in told["CPU cores"]
    assert "free in this folder" in told["disk"]
    assert set(installation.EXTRAS) == set(EXTRA_MODULES)
    assert "[parquet]" in printed
    assert printed.splitlines()[-1] == "the core works: all that is needed to harmonize is there"
    assert str(vgg_weights) in printed


def test_doctor_tells_a_broken_core(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "CORE_MODULES", ("numpy", "cvsct_no_such_library"))
    code, printed, _ = run("doctor")
    assert code == 1
    assert "cvsct_no_such_library: ModuleNotFoundError" in printed
    assert printed.splitlines()[-1] == "the core does not work: core"


def test_doctor_tells_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["numpy>=1", "torch<2.14,>=2.10; extra == 'train'", 'onnx>=1.17 ; extra == "train"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    assert installation.required("") == ["numpy"]
    assert installation.required("train") == ["torch", "onnx"]
    monkeypatch.setattr(installation, "_version", {"onnx": "1.17"}.get)
    assert installation.extra("train").detail == "lacks torch; pip install 'cvsct[train]'"
    monkeypatch.setattr(installation, "_version", {"onnx": "1.17", "torch": "2.10"}.get)
    assert installation.extra("train").detail == "torch 2.10, onnx 1.17"
    monkeypatch.setenv("CVSCT_VGG_WEIGHTS", "/no/such/file")
    assert installation.vgg_weights().detail.startswith("not found, needed to train cvsct")
    assert "/no/such/file" in installation.vgg_weights().detail
    monkeypatch.delenv("CVSCT_VGG_WEIGHTS")
    monkeypatch.setenv("TORCH_HOME", "/no/such/folder")
    assert "offers to download 58.9 MB" in installation.vgg_weights().detail


def test_doctor_tells_what_other_systems_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "at most 2.1 GB" in machine.decoder()
    assert "compiler" not in installation.extra("evaluate").detail
    monkeypatch.setattr(installation, "_version", {}.get)
    assert "compiler" not in installation.extra("evaluate").detail
    for system in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        assert "needs a C compiler, or take conda or WSL" in installation.extra("evaluate").detail
        assert "compiler" not in installation.extra("train").detail
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "no memory limit: this system has none" in machine.decoder()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert "no memory limit: this system has none" in machine.decoder()


def test_memory_by_hand(tmp_path: Path) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "max"
    meminfo.write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable: 8000000 kB\n")
    assert machine.memory(meminfo, limit) == "16.4 GB, 8.2 GB available"
    limit.write_text("max\n")
    assert machine.memory(meminfo, limit) == "16.4 GB, 8.2 GB available"
    limit.write_text("4000000000\n")
    assert machine.memory(meminfo, limit) == "16.4 GB, 8.2 GB available; limited to 4.0 GB"
    assert machine.memory(tmp_path / "none", limit) == "unknown"
