"""Both domains of a training: what is refused, what is noted, what is left behind."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import weakref
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvsct.core.errors import SeriesError, TrainingError
from cvsct.core.volume import CTVolume, ScanFacts, Scans
from cvsct.io import scans as scans_module
from cvsct.io.read import SeriesFiles
from cvsct.io.scans import open_scans
from cvsct.model.bundle import Bundle, Domain
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.prepare import CACHE, close_domains, open_domains
from cvsct.training.data.store import Store, open_store
from tests.conftest import make_volume
from tests.support.commands import Run, options
from tests.support.dicom_files import write_series
from tests.training.test_patches import body

RULE = PatchRule(24)
Opened = Callable[..., tuple[Store, Store]]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def opened(tmp_path: Path, notes: list[str]) -> Opened:
    def call(source: Scans, target: Scans, **changed: Any) -> tuple[Store, Store]:
        words: dict[str, Any] = {"rule": RULE, "batch": 4, "note": notes.append, **changed}
        return open_domains(source, target, tmp_path / "m", **words)

    return call


def scan(slices: int = 12, pixel_mm: float = 0.7, thick_mm: float = 5.0) -> CTVolume:
    return make_volume(body(0, slices), thick_mm, pixel_mm)


def test_domains_alike_are_stored_without_a_word(
    opened: Opened, notes: list[str], tmp_path: Path
) -> None:
    a, b = opened([scan()], [scan(pixel_mm=0.702)])
    assert (len(a), len(b), notes) == (12, 12, [])
    assert {path.name for path in (tmp_path / "m" / CACHE).glob("[!.]*")} == {"source", "target"}
    close_domains(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_pixels_that_differ_are_refused_with_the_remedy(
    opened: Opened, notes: list[str], tmp_path: Path
) -> None:
    source, target = [scan(pixel_mm=0.65)], [scan(), scan(pixel_mm=0.81), scan(pixel_mm=0.82)]
    with pytest.raises(
        TrainingError, match=r"source 0\.65 mm, target 0\.81 mm .*25% of 5% .*resample_mm=0\.81"
    ):
        opened(source, target)
    assert list(tmp_path.iterdir()) == []
    a, b = opened(source, target, resample_mm=0.81)
    assert {each.pixel_mm for each in a.facts + b.facts} == {(0.81, 0.81)}
    assert Domain.from_facts(b.facts).pixel_mm == (0.81, 0.81)
    assert ["resampled to pixels of 0.81 mm, which changes" in note for note in notes] == [True]


def test_small_differences_few_slices_and_few_places_are_noted(
    opened: Opened, notes: list[str]
) -> None:
    a, b = opened([scan(pixel_mm=0.69)], [scan(slices=3, thick_mm=11.0)], batch=70)
    places = int(b.counts.sum())
    assert places < 4 * 70 <= a.counts.sum()
    assert [note.split(";")[0] for note in notes] == [
        "the target holds only 3 slices",
        "pixel spacing differs: source 0.69 mm, target 0.7 mm (medians), 1.4%",
        "slice thickness differs: source 5 mm, target 11 mm (medians)",
        f"the target has only {places} places for patches of 24 px with 80% soft tissue",
    ]


@pytest.mark.parametrize("slices", [0, 1])
def test_a_domain_of_one_slice_is_refused(opened: Opened, tmp_path: Path, slices: int) -> None:
    with pytest.raises(TrainingError, match=f"the target holds {slices} slices?, of 2 needed"):
        opened([scan()], [scan(1)][:slices])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 150_000))
    with pytest.raises(TrainingError, match=r"need 0\.00 GB here, 0\.00 GB are free; free some"):
        opened([scan()], [scan(30)])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        TrainingError, match=r"cannot store the scans in .*No space left.*free some"
    ):
        opened([scan()], [scan()])
    assert list(tmp_path.iterdir()) == []


def test_a_bad_series_leaves_nothing_and_an_interrupt_leaves_what_is_whole(
    opened: Opened, tmp_path: Path
) -> None:
    class Breaking(list[CTVolume]):
        facts = (ScanFacts.of(scan()),)
        error: type[BaseException] = SeriesError

        def __iter__(self) -> Iterator[CTVolume]:
            raise self.error

    broken = Breaking([scan()])
    with pytest.raises(SeriesError):
        opened([scan()], broken)
    assert list(tmp_path.iterdir()) == []
    broken.error = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        opened([scan()], broken)
    assert {path.name for path in (tmp_path / "m" / CACHE).iterdir()} == {"source"}


def test_series_on_disk_are_described_without_being_read_and_then_read_one_by_one(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[CTVolume]] = []
    whole = scans_module.read_series

    def watched(series: SeriesFiles) -> CTVolume:
        gc.collect()
        assert not any(each() for each in alive)
        volume = whole(series)
        alive.append(weakref.ref(volume))
        return volume

    found = open_scans(scans)
    expected = Domain.of(list(found))
    monkeypatch.setattr(scans_module, "read_series", watched)
    assert Domain.of(found) == expected
    assert alive == []
    open_store(tmp_path / "store", found, RULE)
    assert len(alive) == len(found) == 4
    monkeypatch.undo()
    assert [volume.series_uid for volume in found] == [each.series_uid for each in found.facts]
    assert {each.patient for each in found.facts} == {next(iter(found)).patient}


def test_patients_without_an_identifier_are_told_apart_by_study(tmp_path: Path) -> None:
    def anonymous(study: str) -> Any:
        def change(dataset: Any, _: int) -> None:
            del dataset.PatientID
            dataset.StudyInstanceUID = study

        return change

    for series, study in (("1.7.1", "1.8.1"), ("1.7.2", "1.8.1"), ("1.7.3", "1.8.2")):
        write_series(tmp_path / series, change=anonymous(study), series=series)
    a, b, c = (each.patient for each in open_scans(tmp_path).facts)
    assert a == b != c


@pytest.mark.usefixtures("small_sample", "without_graphs")
def test_training_takes_up_an_interrupted_start_and_removes_its_cache(
    run: Run, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m"
    open_domains(open_scans(scans / "sharp"), open_scans(scans / "soft"), out, RULE, 2)
    (out / CACHE / "source" / "mine").touch()
    kept = []
    original = Store.__init__

    def opening(self: Store, folder: Path, *rest: Any) -> None:
        kept.append((folder / "mine").exists())
        original(self, folder, *rest)

    monkeypatch.setattr(Store, "__init__", opening)
    words = ["train", "cvsct", "--source", scans / "sharp", "--target", scans / "soft"]
    words += ["--out", out, *options("cvsct"), "--set", "min_tissue=0.8"]
    code, _, err = run(*words)
    assert code == 0, err
    assert kept == [True, False]
    assert not (out / CACHE).exists()


@pytest.mark.usefixtures("small_sample", "without_graphs")
def test_the_command_notes_refuses_and_resamples(run: Run, scans: Path, tmp_path: Path) -> None:
    def coarse(dataset: Any, _: int) -> None:
        dataset.PixelSpacing = [0.8, 0.8]

    stored = np.pad(body(0, 6, 128), ((0, 0), (16, 16), (16, 16)), mode="edge") + 1024
    write_series(tmp_path / "coarse", stored=stored.astype("<u2"), change=coarse, series="1.6.6")
    words = ["train", "cvsct", "--source", scans / "sharp", "--target", tmp_path / "coarse"]
    words += ["--out", tmp_path / "m", "--allow", "phantom", *options("cvsct")]
    before = sorted(tmp_path.iterdir())
    code, _, err = run(*words)
    assert code == 1
    assert "pixel spacing differs: source 0.7 mm, target 0.8 mm" in err
    assert "--set resample_mm=0.8" in err
    assert sorted(tmp_path.iterdir()) == before
    code, _, err = run(*words, "--set", "resample_mm=0.8")
    assert code == 0, err
    assert "note: both domains are resampled to pixels of 0.8 mm" in err
    assert "note: the source holds only 6 slices" in err
    assert "resampled" in (tmp_path / "m" / "manifest.json").read_text()
    assert Bundle.read(tmp_path / "m").source.pixel_mm == (0.8, 0.8)
    use = ["harmonize", "--model", tmp_path / "m", "--engine", "torch", "--out"]
    code, _, err = run(*use, tmp_path / "fits", tmp_path / "coarse", "--reverse")
    assert code == 0, err
    code, _, err = run(*use, tmp_path / "misfits", scans / "sharp")
    assert code == 1
    assert "resampled to pixels of 0.8 mm, these have 0.7 mm" in err
