from __future__ import annotations

import sys
from pathlib import Path, PureWindowsPath

import nibabel as nib
import numpy as np
import pytest

from cvsct.benchmarking.train_and_evaluate import DIRECTION_FOLDERS
from cvsct.core.names import MAX_NAME, portable_name
from cvsct.core.resumable import part_of
from cvsct.inference.cohort.shards import Shard
from cvsct.inference.streaming import folder_name
from cvsct.io.nifti.write import named_alone, output_name
from cvsct.io.read import find_series
from cvsct.methods.registry import METHODS
from cvsct.simulation.benchmark import Scan, Subject
from cvsct.simulation.physics.definition import load_definition

HOSTILE = (
    *("CON", "nul", "COM1", "lpt9.x", "Aux.tar", "PRN ", "COM\u00b9", "conin$"),
    *("thorax.", "thorax...", "thorax ", " thorax", ". .", "a<b>c", 'a"b', "a|b", "a?b*", "a:b"),
    *(
        "a/b",
        "a\\b",
        "..",
        "../x",
        "C:x",
        "2026-11-28T09:30:00",
        "a\x00b",
        "a\nb",
        "\u202e",
        "x" * 300,
    ),
    *("\u00e4" * 200, "CON" + "x" * 200, "\u809d" * 83, "\U0001f98a" * 62, "x" * 99 + ".y", "   "),
)
SOUND = (
    "thorax",
    "Patient 7",
    ".hidden",
    "a.b.c",
    "M\u00fcller",
    "console",
    "com",
    "COM10",
    "Bl64",
)


def holds_everywhere(name: str) -> bool:
    """Whether Windows, macOS and Linux can all have a file of that name."""
    return (
        0 < len(name) <= 180
        and len(name.encode()) + len("..1234567.partial") <= 255
        and not set(name) & set('<>:"/\\|?*')
        and name.isprintable()
        and name == name.rstrip(". ")
        and not PureWindowsPath(name).is_reserved()
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_becomes_a_name_for_every_system(text: str) -> None:
    name = portable_name(text)
    assert holds_everywhere(name), name
    assert len(name) <= MAX_NAME
    assert portable_name(name) == name


@pytest.mark.parametrize("text", SOUND)
def test_a_sound_name_stays(text: str) -> None:
    assert portable_name(text) == text


@pytest.mark.skipif(sys.platform == "win32", reason="no such file can be there on Windows")
@pytest.mark.parametrize("stem", [text for text in HOSTILE if not set(text) & {"/", "\x00"}])
def test_a_derived_nifti_has_a_name_for_every_system(stem: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem[:120]}.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)
    (series,) = named_alone(find_series(path))
    name = output_name(series.name, path)
    assert holds_everywhere(name), name
    assert len(f".journal-1of4/{'0' * 16}-1/.{name}.1234567.partial") < 180  # of Windows' 260


@pytest.mark.skipif(sys.platform == "win32", reason="no such file can be there on Windows")
def test_names_that_differ_by_case_alone_or_become_the_same_are_told_apart(tmp_path: Path) -> None:
    for i, name in enumerate(("A/Thorax 1_5", "B/thorax 1:5", "C/THORAX 1?5")):
        (tmp_path / name).parent.mkdir()
        image = nib.Nifti1Image(np.full((4, 4, 4), i, np.int16), np.eye(4))
        nib.save(image, tmp_path / f"{name}.nii")
    names = [series.name.casefold() for series in named_alone(find_series(tmp_path))]
    assert len(set(names)) == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_simulated_series_have_folders_for_every_system(text: str) -> None:
    scan = Scan(
        part="kernels/train", number=1, body=Subject("patient", 3, True), scanner=text,
        thickness_mm=1.25, first_mm=0.0, slices=3, kvps=(120.0,), mas=(100.0,), kernels=(text,),
        noise_seed=1, fov_mm=350.0, matrix_px=64, raster_px=64,
    )  # fmt: skip
    for part in ("kernels/train", "train"):
        (series,) = Scan(**{**vars(scan), "part": part}).series()
        *above, own = series.folder.split("/")
        assert above[:-1] == part.split("/")
        assert holds_everywhere(above[-1]) and holds_everywhere(own), series.folder


def test_kernels_that_would_share_a_folder_are_refused() -> None:
    definition = load_definition("siemens-somatom-force")
    kernel = next(iter(definition.kernels.values()))
    again = {**definition.model_dump(), "kernels": {"Br:40": kernel, "br?40": kernel}}
    with pytest.raises(ValueError, match="would share a folder"):
        type(definition).model_validate(again)


def test_every_other_name_is_ours() -> None:
    ours = [
        *(f"{method}-12" for method in METHODS), *DIRECTION_FOLDERS, folder_name("1.2.840/../x:y"),
        part_of("plan.json", Shard(3, 400_000).name), part_of("journal.sqlite", Shard(1, 2).name),
    ]  # fmt: skip
    assert [name for name in ours if not holds_everywhere(name)] == []
