"""Series that stream: the bytes of the whole-volume path, little memory, nothing left by errors."""

from __future__ import annotations

import gc
import logging
import threading
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from cvsct.core.errors import SeriesError
from cvsct.core.volume import CTVolume
from cvsct.inference.harmonize_volume import harmonize_volume
from cvsct.inference.overlap import AHEAD, overlap
from cvsct.inference.streaming import Outcome, derivation_of, harmonize_series
from cvsct.io import series
from cvsct.io.dicom import write as derived
from cvsct.io.dicom.header import quiet
from cvsct.io.dicom.stack import Stack, open_stack
from cvsct.io.dicom.write import Derivation, write_derived
from cvsct.io.read import find_series, read_series
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle, Domain
from tests.conftest import make_volume
from tests.support.dicom_files import DERIVATION, stored_values, write_series
from tests.support.streaming import finished, harmonize_each

DOMAIN = Domain.of([make_volume(np.zeros((1, 4, 4)))])
BUNDLE = Bundle("input", {}, {}, DOMAIN, DOMAIN, sha256="ab" * 32)


def louder(volume: CTVolume) -> np.ndarray:
    """Depends on the slice's own values alone."""
    return np.float32(1.5) * volume.hu - volume.hu.mean(axis=(1, 2), keepdims=True)


def stream(source: Path, out: Path, at_once: int | None = 1, run=louder) -> list[Outcome]:  # type: ignore[no-untyped-def]
    mapping = VolumeMapping(run, at_once)
    derivation = derivation_of(BUNDLE, mapping, reverse=False, keep_equipment=False)
    return harmonize_each(find_series(source), mapping, out, derivation)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def some_padding(ds: Dataset, i: int) -> None:
    """Slices 2 and 3 have padding, of different kinds; the others none."""
    ds.PixelPaddingValue = 0
    if i in (2, 3):
        stored = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).copy()
        stored[: 8 + i] = 0
        ds.PixelData = stored.tobytes()


@pytest.mark.parametrize("at_once", [1, 3, None])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless]
)
def test_a_stream_writes_the_bytes_that_a_whole_volume_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int | None, syntax: str
) -> None:
    source = write_series(tmp_path / "in", 7, change=some_padding, syntax=syntax)
    used: list[Derivation] = []
    whole = derived.DerivedWriter

    def watched(
        folder: Path, derivation: Derivation, n_slices: int, repeated: frozenset[str]
    ) -> derived.DerivedWriter:
        used.append(derivation)
        return whole(folder, derivation, n_slices, repeated)

    monkeypatch.setattr(series, "DerivedWriter", watched)
    (outcome,) = stream(source, tmp_path / "out", at_once)
    volume = read_series(find_series(source)[0])
    assert volume.padding is not None
    assert volume.padding.any(axis=(1, 2)).tolist() == [i in (2, 3) for i in range(7)]
    result = harmonize_volume(volume, VolumeMapping(louder))
    wanted = write_derived(volume, result.hu, tmp_path / "whole", used[0])
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert outcome.derived_uid == wanted.series_uid
    assert outcome.n_slices == 7
    assert outcome.mean_change_hu == pytest.approx(np.abs(result.hu - volume.hu).mean(), rel=1e-5)


def test_parts_of_a_stack_are_slices_of_its_volume(tmp_path: Path) -> None:
    series = find_series(write_series(tmp_path, 5, change=some_padding))[0]
    stack, volume = open_stack(series), read_series(series)
    assert (len(stack), stack.shape) == (5, volume.hu.shape)
    for start, stop in ((0, 2), (2, 3), (3, 9)):
        part = stack.read(start, stop)
        assert np.array_equal(part.hu, volume.hu[start:stop])
        assert np.array_equal(part.geometry.z_mm, volume.geometry.z_mm[start:stop])
        assert part.acquisition == volume.acquisition
        shown = [header.SOPInstanceUID for header in part.headers]
        assert shown == [header.SOPInstanceUID for header in volume.headers[start:stop]]
        assert all("PixelData" not in header for header in part.headers)
        padding = np.zeros(part.hu.shape, bool) if part.padding is None else part.padding
        assert volume.padding is not None
        assert np.array_equal(padding, volume.padding[start:stop])


def test_few_slices_are_in_memory_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that live are counted while a series of 40 goes through two at a time."""
    source = write_series(tmp_path / "in", stored=stored_values(40))
    alive, most = [0], [0]
    lock = threading.Lock()

    def change_count(by: int) -> None:
        with lock:
            alive[0] += by
            most[0] = max(most[0], alive[0])

    whole = Stack.read

    def watched(self: Stack, start: int = 0, stop: int | None = None) -> CTVolume:
        part = whole(self, start, stop)
        change_count(len(part.hu))
        weakref.finalize(part, change_count, -len(part.hu))
        return part

    monkeypatch.setattr(Stack, "read", watched)
    (outcome,) = stream(source, tmp_path / "out", 2)
    assert outcome.n_slices == 40
    assert 2 <= most[0] <= 2 * (2 * AHEAD + 3)
    gc.collect()
    assert alive[0] == 0


def test_what_headers_tell_is_refused_before_a_pixel_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gap(ds: Dataset, i: int) -> None:
        if i == 5:
            ds.ImagePositionPatient = [-100, -120, 5 * i + 40]

    def never(*_: object) -> None:
        raise AssertionError("read a pixel")

    monkeypatch.setattr(Stack, "read", never)
    (outcome,) = stream(write_series(tmp_path / "in", 6, change=gap), tmp_path / "out")
    assert "gap of 45.0 mm" in outcome.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at_once", [1, 4])
def test_an_error_in_the_middle_leaves_nothing_of_that_series(tmp_path: Path, at_once: int) -> None:
    def cut(ds: Dataset, i: int) -> None:
        if i == 6:
            ds.PixelData = ds.PixelData[:100]

    write_series(tmp_path / "in" / "a", 9, change=cut, series="1.2.1")
    write_series(tmp_path / "in" / "b", 3, series="1.2.2")
    outcomes = stream(tmp_path / "in", tmp_path / "out", at_once)
    assert "pixel data cut short at 100" in outcomes[0].error
    assert outcomes[1].n_slices == 3
    (left,) = (tmp_path / "out").iterdir()
    assert left.name == outcomes[1].folder
    assert len(list(left.glob("*.dcm"))) == 3


@pytest.mark.parametrize("at_once", [1, 4, None])
def test_every_slice_is_told_once(tmp_path: Path, at_once: int | None) -> None:
    (series,) = find_series(write_series(tmp_path / "in", 9))
    steps = harmonize_series(series, VolumeMapping(louder, at_once), tmp_path / "out", DERIVATION)
    outcome, told = finished(steps)
    assert sum(told) == outcome.n_slices == 9
    assert len(told) == -(-9 // (at_once or 9))


def test_a_generator_that_is_closed_leaves_nothing(tmp_path: Path) -> None:
    (series,) = find_series(write_series(tmp_path / "in", 9))
    steps = harmonize_series(series, VolumeMapping(louder, 1), tmp_path / "out", DERIVATION)
    assert next(steps) == 1
    steps.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_values_that_are_not_finite_and_ctrl_c_leave_nothing(tmp_path: Path) -> None:
    source = write_series(tmp_path / "in", 6)

    def broken(volume: CTVolume) -> np.ndarray:
        late = volume.geometry.z_mm[0] > 15
        return np.where(late, np.float32(np.nan), volume.hu).astype(np.float32)

    def stopped(volume: CTVolume) -> np.ndarray:
        if volume.geometry.z_mm[0] > 15:
            raise KeyboardInterrupt
        return volume.hu

    (outcome,) = stream(source, tmp_path / "out", run=broken)
    assert "not finite" in outcome.error
    with pytest.raises(KeyboardInterrupt):
        stream(source, tmp_path / "out", run=stopped)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = [0]
    real = derived.write_atomic

    def full(path: Path, content: bytes | str, *, private: bool) -> None:
        count[0] += 1
        if count[0] > 3:
            raise OSError(28, "No space left on device", str(path))
        real(path, content, private=private)

    monkeypatch.setattr(derived, "write_atomic", full)
    (outcome,) = stream(write_series(tmp_path / "in", 12), tmp_path / "out")
    assert "No space left on device; free some space" in outcome.error
    assert list((tmp_path / "out").iterdir()) == []
    assert 4 <= count[0] <= 4 + AHEAD, "what waited to be written at most"


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path, 4)
    stack = open_stack(find_series(folder)[0])
    for keyword, value in (("SOPInstanceUID", "1.2.3.4.77"), ("RescaleSlope", "2")):
        dataset = dcmread(stack.files[2])
        before = dataset[keyword].value
        setattr(dataset, keyword, value)
        dataset.save_as(stack.files[2])
        assert stack.read(0, 2).hu.shape[0] == 2
        with pytest.raises(SeriesError, match="changed while the series was being read"):
            stack.read(2, 3)
        setattr(dataset, keyword, before)
        dataset.save_as(stack.files[2])
    stack.read()


def test_reading_computing_and_writing_overlap_in_order() -> None:
    """Key 1 is computed only once key 2 has been read and key 0 is being written."""
    read_two, writing_zero, computed_one = (threading.Event() for _ in range(3))
    written: list[int] = []

    def read(key: int) -> int:
        if key == 2:
            read_two.set()
        return key

    def compute(value: int) -> int:
        if value == 1:
            assert read_two.wait(20)
            assert writing_zero.wait(20)
            computed_one.set()
        return 10 * value

    def write(value: int) -> None:
        if value == 0:
            writing_zero.set()
            assert computed_one.wait(20)
        written.append(value)

    told: list[int] = []
    told += overlap(range(6), read, compute, write)
    assert written == [0, 10, 20, 30, 40, 50]
    assert told == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("where", ["read", "compute", "write"])
def test_an_error_of_any_stage_comes_out_and_ends_all(where: str) -> None:
    counts = dict.fromkeys(("read", "compute", "write"), 0)

    def stage(name: str, key: int) -> int:
        counts[name] += 1
        if name == where and key == 3:
            raise ValueError(f"{name} failed")
        return key

    with pytest.raises(ValueError, match=f"{where} failed"):
        list(
            overlap(
                range(100),
                lambda key: stage("read", key),
                lambda key: stage("compute", key),
                lambda key: stage("write", key) and None,
            )
        )
    assert max(counts.values()) <= 3 + 2 * AHEAD + 2
    assert counts["write"] >= (4 if where == "write" else 0)
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))
    ]


def test_no_warning_gets_out_while_any_thread_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """One thread leaves while another is still inside, in the order that undoes plain filters."""
    inside, left = threading.Event(), threading.Event()
    logger = logging.getLogger("pydicom")
    caught: list[object] = []

    def other() -> None:
        with quiet():
            inside.set()
            assert left.wait(20)
            caught.append(bool(warnings.filters) and warnings.filters[0][0])
            logger.critical("Doe^John")
            caught.append(bool(caplog.records))

    before = list(warnings.filters)
    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        assert inside.wait(20)
    left.set()
    thread.join()
    assert caught == ["ignore", False]
    assert list(warnings.filters) == before
    logger.error("heard")
    assert [record.message for record in caplog.records] == ["heard"]
