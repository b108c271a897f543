"""Damaged and hostile DICOM: a refusal, never another error, and bounded memory."""

from __future__ import annotations

import logging
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
)

from cvsct.core.errors import CvsctError, SeriesError
from cvsct.io.dicom import header
from cvsct.io.read import find_series, read_all
from tests.support.dicom_files import (
    only,
    slice_dataset,
    stored_values,
    write_slice,
)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a.dcm", slice_dataset(0, stored_values(1)[0]))
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(CvsctError, match=r"^a\.dcm: "):
            read_all(path)


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a.dcm", slice_dataset(0, stored_values(1)[0]))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(3)
    for _ in range(150):
        damaged = whole.copy()
        damaged[rng.integers(132, 1500, size=4)] = rng.integers(0, 256, size=4)
        path.write_bytes(damaged.tobytes())
        try:
            volume = only(path)
        except CvsctError as error:
            assert "; " in str(error)
        else:
            assert np.isfinite(volume.hu).all()


@pytest.mark.parametrize("hidden", [0, 4000])
def test_a_deflated_bomb_is_refused_before_it_inflates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: int
) -> None:
    """Also where the syntax is named far into the file meta group."""
    monkeypatch.setattr(header, "MAX_FILE_BYTES", 2**20)
    path = write_slice(
        tmp_path / "a.dcm", slice_dataset(0, stored_values(1)[0]), DeflatedExplicitVRLittleEndian
    )
    start = 144 + int.from_bytes(path.read_bytes()[140:144], "little")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = bomb.compress(bytes(4 * 2**20)) + bomb.flush()
    meta = path.read_bytes()[:start]
    at = meta.index(b"\x02\x00\x10\x00UI")
    filler = b"\x02\x00\x03\x00OB\0\0" + hidden.to_bytes(4, "little") + bytes(hidden)
    path.write_bytes(meta[:at] + filler * bool(hidden) + meta[at:] + body)
    with pytest.raises(SeriesError, match="holds more than 1 MiB"):
        find_series(path)


def test_nested_sequences_without_end_are_refused(tmp_path: Path) -> None:
    open_item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path = write_slice(tmp_path / "a.dcm", slice_dataset(0, stored_values(1)[0]))
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(content[:at] + open_item * 3000 + content[at:])
    with pytest.raises(SeriesError, match=r"^a\.dcm: damaged header"):
        read_all(path)


def test_messages_of_the_libraries_are_heard_again_afterwards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loggers = [logging.getLogger(name) for name in ("pydicom", "pydicom.pixels.utils", "openjpeg")]
    heard = [(logger.level, logger.propagate, logger.handlers) for logger in loggers]
    with header.quiet(), header.quiet():
        for logger in loggers:
            logger.critical("Doe^John")
        warnings.warn("Doe^John", stacklevel=1)  # an error, were it heard
    assert not caplog.records
    assert [(logger.level, logger.propagate, logger.handlers) for logger in loggers] == heard
    loggers[1].error("heard")
    assert [record.message for record in caplog.records] == ["heard"]
