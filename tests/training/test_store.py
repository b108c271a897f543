"""The stored domain: equals the scans, is larger than memory, whole or absent, used again."""

from __future__ import annotations

import gc
import json
import os
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import TrainingError
from cvsct.core.volume import CTVolume, HUWindow, ScanFacts, facts_of
from cvsct.io.read import read_all
from cvsct.io.scans import open_scans
from cvsct.methods.base import TrainingRequest
from cvsct.methods.histogram import train_histogram
from cvsct.methods.spectrum.train import train_spectrum
from cvsct.training.data import store as store_module
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.resampling import resampled
from cvsct.training.data.sampler import PatchSampler
from cvsct.training.data.store import INDEX, VOXELS, Store, open_store
from tests.conftest import make_volume, phantom_hu
from tests.support.dicom_files import slice_dataset, write_series
from tests.training.test_patches import body

RULE = PatchRule(24)


def test_the_store_holds_every_voxel_of_the_scans(scans: Path, tmp_path: Path) -> None:
    volumes = read_all(scans)
    store = open_store(tmp_path / "store", open_scans(scans), RULE)
    assert len(store) == sum(len(volume.hu) for volume in volumes)
    planes = [plane for volume in volumes for plane in volume.hu]
    for index, plane in enumerate(planes):
        assert store.plane(index).dtype == np.int16
        assert np.array_equal(store.plane(index), plane)
    assert np.array_equal(store.z_mm, np.concatenate([each.geometry.z_mm for each in volumes]))


def test_hu_that_are_no_whole_numbers_lose_nothing(tmp_path: Path) -> None:
    """A rescale slope of 0.5, and values beyond 16 bits: these series take more room."""
    half = make_volume(body(0) + np.arange(64) * 0.5)
    huge = body(1)
    huge[0, 0, 0] = 40_000
    store = open_store(tmp_path / "store", [half, make_volume(huge), make_volume(body(2))], RULE)
    assert [store.plane(index).dtype.itemsize for index in range(6)] == [4, 4, 4, 4, 2, 2]
    assert np.array_equal(store.plane(1), half.hu[1])
    assert np.array_equal(store.plane(2), huge[0])


def test_no_identifier_is_written(scans: Path, tmp_path: Path) -> None:
    def patient(dataset: object, _: int) -> None:
        dataset.PatientID = "SECRET-4711"  # type: ignore[attr-defined]

    stored = (phantom_hu(5, 0.0, slices=3, size_px=96) + 1024).astype("<u2")
    write_series(tmp_path / "scans", stored=stored, change=patient, series="1.2.77.8")
    found = open_scans(tmp_path / "scans")
    open_store(tmp_path / "store", found, RULE)
    written = b"".join(path.read_bytes() for path in (tmp_path / "store").iterdir())
    who = found.facts[0].patient
    for secret in ("SECRET-4711", "1.2.77.8", who, slice_dataset(0, stored[0]).FrameOfReferenceUID):
        assert secret.encode() not in written
    assert "SECRET" not in repr(found) + str(next(iter(found)))
    assert who not in repr(found)


class Watched:
    """Scans made when they are asked for; tells how many were alive at once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.alive: list[weakref.ref[CTVolume]] = []
        self.most = 0

    def __len__(self) -> int:
        return self.count

    @property
    def facts(self) -> tuple[ScanFacts, ...]:
        return tuple(replace(ScanFacts.of(self.make(i)), stamp="1") for i in range(self.count))

    def make(self, index: int) -> CTVolume:
        return make_volume(phantom_hu(index, 0.5, slices=4, size_px=160))

    def __iter__(self) -> Iterator[CTVolume]:
        for index in range(self.count):
            gc.collect()
            self.most = max(self.most, 1 + sum(each() is not None for each in self.alive))
            yield self._watch(self.make(index))

    def _watch(self, volume: CTVolume) -> CTVolume:
        self.alive.append(weakref.ref(volume))
        return volume


@pytest.mark.parametrize(
    "how", ["store", "resampled", "histogram", pytest.param("spectrum", marks=pytest.mark.slow)]
)
def test_one_scan_is_in_memory_at_a_time(tmp_path: Path, how: str) -> None:
    """So a domain may be larger than memory, for every method."""
    source, target = Watched(4), Watched(3)
    request = TrainingRequest("x", tmp_path)
    if how == "histogram":
        train_histogram(source, target, request)
    elif how == "spectrum":
        request = replace(request, settings={"patch_mm": 15})
        train_spectrum(source, target, request)
    else:
        open_store(tmp_path / "s", source, RULE, 0.8 if how == "resampled" else None)
    passes = 2 if how == "spectrum" else 1  # the fit, and its correction
    assert len(source.alive) == passes * 4
    assert source.most == 1
    assert target.most <= 1


def test_a_store_is_used_again_while_scans_and_patches_are_the_same(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    stored = (phantom_hu(5, 0.0, slices=3, size_px=96) + 1024).astype("<u2")
    write_series(tmp_path / "scans", stored=stored)
    written = []

    def opened(rule: PatchRule = RULE, resample_mm: float | None = None) -> bool:
        before = len(written)
        open_store(folder, open_scans(tmp_path / "scans"), rule, resample_mm)
        return len(written) > before

    whole = store_module._write
    monkeypatch.setattr(
        store_module, "_write", lambda *words: [written.append(1), whole(*words)][1]
    )
    assert opened()
    assert not opened()
    assert opened(PatchRule(32))
    assert opened(PatchRule(32, 0.5))
    assert opened(PatchRule(32, 0.5), 0.9)
    assert not opened(PatchRule(32, 0.5), 0.9)
    with (folder / VOXELS).open("r+b") as stream:
        stream.truncate(100)
    assert opened(PatchRule(32, 0.5), 0.9)
    (folder / INDEX).write_text("{")
    assert opened()
    os.utime(tmp_path / "scans" / "001.dcm", (0, 0))
    assert opened()
    write_series(tmp_path / "scans" / "more", stored=stored, series="1.2.3.5")
    assert opened()


def test_scans_in_memory_are_stored_anew(tmp_path: Path) -> None:
    open_store(tmp_path / "s", [make_volume(body(0))], RULE)
    second = open_store(tmp_path / "s", [make_volume(body(1))], RULE)
    assert np.array_equal(second.plane(0), body(1)[0])


def test_the_fingerprint_tells_sets_of_scans_apart(tmp_path: Path) -> None:
    one, two = (replace(make_volume(body(0)), series_uid=uid) for uid in ("1.1", "1.2"))
    prints = [
        open_store(tmp_path / "s", volumes, RULE).fingerprint
        for volumes in ([one, two], [two, one], [one], [one.select([0]), two])
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_killed_or_failed_store_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    class Failing(list[CTVolume]):
        def __iter__(self) -> Iterator[CTVolume]:
            yield make_volume(body(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(tmp_path / "s", Failing([make_volume(body(0))]), RULE)
    assert list(tmp_path.iterdir()) == []


def test_resampling_keeps_hu_and_places(tmp_path: Path) -> None:
    """A line of known slope reads the same at the same millimetre on the new grid."""
    y, x = np.mgrid[:80, :90].astype(float)
    volume = make_volume(np.stack([300 - 5 * x + 3 * y] * 2), pixel_mm=0.7)
    for to_mm in (0.5, 0.7, 1.0):
        fine = resampled(volume, to_mm)
        assert fine.geometry.pixel_mm == (to_mm, to_mm)
        assert fine.hu.shape == (2, round(80 * 0.7 / to_mm), round(90 * 0.7 / to_mm))
        start = fine.geometry.positions_mm[0]
        rows_mm = start[1] + np.arange(fine.hu.shape[1]) * to_mm
        columns_mm = start[0] + np.arange(fine.hu.shape[2]) * to_mm
        expected = 300 - 5 * columns_mm / 0.7 + 3 * rows_mm[:, None] / 0.7
        assert np.abs(fine.hu[0] - expected)[5:-5, 5:-5].max() <= 0.51
    assert np.array_equal(resampled(volume, 0.7).hu, volume.hu)
    store = open_store(tmp_path / "s", [make_volume(body(0))], PatchRule(16), 1.0)
    assert store.facts[0].pixel_mm == (1.0, 1.0)
    assert store.facts[0].shape == (2, *store.plane(0).shape)
    assert store.plane(0).dtype == np.int16
    assert store.fingerprint == store_module.fingerprint(facts_of([make_volume(body(0))]))


def domain(folder: Path, patients: list[str], slices: int = 3) -> Store:
    volumes = [
        replace(make_volume(body(i, slices)), patient=who, series_uid=f"1.{i}")
        for i, who in enumerate(patients)
    ]
    return open_store(folder, volumes, RULE)


def held_out(store: Store, fraction: float, seed: int) -> tuple[set[str], set[str]]:
    parts = PatchSampler(store, HUWindow()).split(fraction, np.random.default_rng(seed))
    who = np.array([each.patient for each in store.facts])[store.series]
    slices = np.concatenate([parts.training.slices, parts.validation.slices])
    assert sorted(slices) == list(range(len(store)))
    assert len(parts.training) and len(parts.validation)
    return set(who[parts.training.slices]), set(who[parts.validation.slices])


def test_patients_lie_on_one_side_of_the_split(tmp_path: Path) -> None:
    store = domain(tmp_path / "a", ["p", "q", "p", "r", "s", "q", "t"])
    seen = set()
    for seed in range(8):
        learned, kept = held_out(store, 0.3, seed)
        assert learned.isdisjoint(kept)
        assert held_out(store, 0.3, seed) == (learned, kept)
        seen.add(frozenset(kept))
    assert len(seen) > 1
    assert len(held_out(store, 0.01, 0)[1]) == 1
    assert len(held_out(store, 0.99, 0)[0]) >= 1


def test_a_patient_of_both_domains_falls_on_one_side(tmp_path: Path) -> None:
    patients = list("abcdefgh")
    first = held_out(domain(tmp_path / "a", patients), 0.4, 3)[1]
    second = held_out(domain(tmp_path / "b", patients[::-1]), 0.4, 3)[1]
    assert first == second


def test_the_only_patient_is_parted_by_z_with_a_gap(tmp_path: Path) -> None:
    """Two series in one frame of reference, 5 mm apart: the same heights fall on one side."""
    store = domain(tmp_path / "a", ["p", "p"], slices=10)
    parts = PatchSampler(store, HUWindow()).split(0.2, np.random.default_rng(0))
    assert "only patient" in parts.how
    assert "10 mm" in parts.how
    lowest = store.z_mm[parts.validation.slices].min()
    assert lowest == 40
    assert store.z_mm[parts.training.slices].max() == lowest - 10
    for part in (parts.training, parts.validation):
        assert part.draw(3, np.random.default_rng(0)).shape == (3, 1, 24, 24)
    with pytest.raises(TrainingError, match="2 slices of one patient are too few"):
        PatchSampler(domain(tmp_path / "b", ["p"], 2), HUWindow()).split(
            0.2, np.random.default_rng(0)
        )


def test_the_index_says_what_it_was_made_from(tmp_path: Path) -> None:
    domain(tmp_path / "a", ["p", "q"])
    about = json.loads((tmp_path / "a" / INDEX).read_text())
    assert about["rule"] == {"size_px": 24, "min_tissue": 0.8}
    assert [each["shape"] for each in about["series"]] == [[3, 64, 64]] * 2
    assert "patient" not in json.dumps(about)
