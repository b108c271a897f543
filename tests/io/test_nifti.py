"""NIfTI in and out: our order of voxels, the file's own header, and nothing believed."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cvsct.core.errors import CvsctError
from cvsct.io.dicom.stack import SeriesFiles, open_stack
from cvsct.io.nifti import header as nifti_header
from cvsct.io.nifti.read import open_nifti
from cvsct.io.nifti.write import NiftiWriter, write_nifti
from cvsct.io.read import find_series, read_all, read_facts
from tests.support.commands import Run
from tests.support.dicom_files import DERIVATION, only, signed, stored_values, write_series
from tests.support.nifti_files import (
    FIRST_MM,
    SHAPE,
    STEPS_MM,
    scan_hu,
    write_converted,
    write_scan,
)

ORIENTATIONS = [
    "".join(word)
    for letters in itertools.permutations(("LR", "PA", "SI"))
    for word in itertools.product(*letters)
]


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_every_order_of_axes_gives_the_same_volume_and_is_written_back(
    tmp_path: Path, axes: str
) -> None:
    path = write_scan(tmp_path / "a.nii", axes)
    volume = only(path)
    np.testing.assert_array_equal(volume.hu, scan_hu())
    where = volume.geometry
    np.testing.assert_allclose(where.positions_mm[:, 2], FIRST_MM[2] + 5 * np.arange(6))
    np.testing.assert_allclose(where.positions_mm[:, :2], [FIRST_MM[:2]] * 6)
    np.testing.assert_allclose(where.row_direction, (1, 0, 0), atol=1e-6)
    np.testing.assert_allclose(where.column_direction, (0, 1, 0), atol=1e-6)
    assert where.pixel_mm == pytest.approx(STEPS_MM[1:])
    assert where.spacing_mm == pytest.approx(STEPS_MM[0])
    stack = open_nifti(path)
    writer = NiftiWriter(tmp_path / "out", DERIVATION, stack)
    for start in (0, 4):
        part = stack.read(start, start + 4)
        writer.write(part, part.hu)
    (written,) = writer.finish().files
    before, after = bytearray(path.read_bytes()), bytearray(written.read_bytes())
    assert after[148:228].rstrip(b"\0") == b"cvsct derived, research use only"
    before[148:228] = after[148:228]
    assert before == after


@pytest.mark.parametrize(
    ("dtype", "scaling"),
    [
        ("<i2", (1, 0)), (">i2", (1, 0)), ("<u2", (1, -1024)), ("<i4", (0.5, 10)),
        ("<f4", (1, 0)), ("<f8", (1, 0)), ("<i2", (0, 7)), ("<i2", (float("nan"), 0)),
    ],
)  # fmt: skip
def test_types_and_scaling(tmp_path: Path, dtype: str, scaling: tuple[float, float]) -> None:
    true = scaling if scaling[0] in (1, 0.5) else (1, 0)
    path = write_scan(
        tmp_path / "a.nii.gz", dtype=dtype, scaling=true,
        scl_slope=scaling[0], scl_inter=scaling[1],
    )  # fmt: skip
    volume = only(path)
    np.testing.assert_array_equal(volume.hu, scan_hu())
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj).T, scan_hu())
    stack = open_nifti(path)
    writer = NiftiWriter(tmp_path / "out", DERIVATION, stack)
    new = scan_hu() + 20.3
    writer.write(stack.read(), new.astype(np.float32))
    (written,) = writer.finish().files
    back = nib.load(written)
    assert back.header.get_data_dtype() == np.dtype(dtype)
    step = true[0] / 2 if dtype[1] in "iu" else 2e-4
    assert np.abs(np.asarray(back.dataobj).T - new).max() <= step + 1e-4


def test_nifti_2_and_a_trailing_axis_of_one(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nii.gz", version=2)
    np.testing.assert_array_equal(only(path).hu, scan_hu())
    path = write_scan(tmp_path / "b.nii", dim=[4, *SHAPE[::-1], 1, 1, 1, 1])
    np.testing.assert_array_equal(only(path).hu, scan_hu())


def test_padding_and_untouched_voxels_keep_their_stored_values(tmp_path: Path) -> None:
    hu = scan_hu() + 0.1
    hu[:, :3] = -2000.7
    hu[2, 1] = -3024
    stack = open_nifti(write_scan(tmp_path / "a.nii", "RAS", hu=hu, dtype="<f8"))
    part = stack.read()
    assert part.padding is not None
    np.testing.assert_array_equal(part.padding, hu < -1500)
    assert (part.hu[part.padding] == -1024).all()
    new = part.hu.copy()
    new[:, 10:] += 5
    writer = NiftiWriter(tmp_path / "out", DERIVATION, stack)
    writer.write(part, new)
    back = open_nifti(writer.finish().files[0]).stored
    np.testing.assert_array_equal(back[:, :10], hu[:, :10])
    np.testing.assert_allclose(back[:, 10:], hu[:, 10:] + 5, atol=1e-3)


def test_values_beyond_the_type_are_clipped(tmp_path: Path) -> None:
    stack = open_nifti(write_scan(tmp_path / "a.nii", dtype="<u2", scaling=(1, -1024)))
    writer = NiftiWriter(tmp_path / "out", DERIVATION, stack)
    part = stack.read()
    new = part.hu + 1
    new[0, 0, :2] = -5000, 90000
    writer.write(part, new)
    assert read_all(writer.finish().files[0])[0].hu[0, 0, :2].tolist() == [-1024, 64511]


def test_a_scan_is_known_by_its_bytes(tmp_path: Path) -> None:
    a = write_scan(tmp_path / "a.nii")
    b = write_scan(tmp_path / "deep" / "b.nii", hu=scan_hu() + 1)
    (tmp_path / "notes.txt").write_text("foreign")
    found = find_series(tmp_path)
    assert {each.series_uid for each in found} == {
        open_nifti(a).series_uid, open_nifti(b).series_uid,
    }  # fmt: skip
    facts = read_facts(found[0])
    assert (facts.shape, facts.patient, found[0].n_slices) == (SHAPE, "", SHAPE[0])


def test_beside_dicom_nifti_is_a_mask_or_a_conversion(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    write_scan(tmp_path / "scan" / "converted.nii.gz")
    write_scan(tmp_path / "masks" / "lung.nii.gz")
    assert [each.series_uid for each in find_series(tmp_path)] == ["1.2.3.4"]


def _rotated(about_x: float, about_y: float) -> np.ndarray:
    """Turned about the first axis, then about the second, in degrees."""
    (c, s), (d, t) = ((np.cos(a), np.sin(a)) for a in np.radians((about_x, about_y)))
    return np.array([[d, 0, t], [0, 1, 0], [-t, 0, d]]) @ [[1, 0, 0], [0, c, -s], [0, s, c]]


def _srow(matrix: np.ndarray) -> dict[str, object]:
    return {f"srow_{name}": [*row, 0.0] for name, row in zip("xyz", matrix, strict=True)}


SHEARED = np.array([[1.0, 0, 0], [0, 1, 0.3], [0, 0, 1]])
REFUSED = {
    "sheared": (_srow(SHEARED), "sheared by 16.7 degrees"),
    "oblique": (_srow(_rotated(45, 35.26)), "oblique, no axis is within 45 degrees"),
    "no place": ({"sform_code": 0, "qform_code": 0}, "does not say where it lies in mm"),
    "metres": ({"xyzt_units": 1}, "lengths in meter"),
    "no spacing": (_srow(np.diag([1.0, 0, 1])), "or no spacing"),
    "nowhere": (_srow(np.diag([1.0, np.nan, 1])), "or no spacing"),
    "series in time": ({"dim": [4, 12, 20, 6, 2, 1, 1, 1]}, "expected one 3-D image"),
    "a line": ({"dim": [1, 2880, 1, 1, 1, 1, 1, 1]}, "expected one 3-D image"),
    "too wide": ({"dim": [3, 32767, 1, 1, 1, 1, 1, 1]}, "declares 32767 x 1 x 1 voxels"),
    "no voxels": ({"dim": [3, 0, 1, 1, 1, 1, 1, 1]}, "declares 0 x 1 x 1 voxels"),
    "cut short": ({"dim": [3, 24, 20, 7, 1, 1, 1, 1]}, "5760 bytes of voxels"),
    "bomb": ({"dim": [3, 4000, 4000, 400, 1, 1, 1, 1]}, "more than any CT"),
    "labels": ({"intent_code": 1002}, "a label map"),
    "8 bits": ({"datatype": 2, "bitpix": 8}, "8 bits"),
    "color": ({"datatype": 128, "bitpix": 24}, "colors"),
    "unknown type": ({"datatype": 77}, "cannot be read as NIfTI"),
    "no HU": ({"scl_inter": 1024}, "expected HU with air near -1000"),
    "far from HU": ({"scl_slope": 3e38}, "expected HU with air near -1000"),
    "far voxels": ({"vox_offset": 1e9}, "voxels begin at byte"),
    "pair": ({"magic": b"ni1"}, "not a NIfTI file of one part"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_what_is_no_scan_in_hu_is_refused_by_name(tmp_path: Path, kind: str, suffix: str) -> None:
    changes, message = REFUSED[kind]
    path = write_scan(tmp_path / f"a.{suffix}", **changes)
    with pytest.raises(CvsctError, match=rf"^a\.{suffix}: .*{message}.*; "):
        read_all(path)
    assert len(find_series(tmp_path)) == 1 if kind not in ("labels", "8 bits", "color") else True


def test_tilted_heads_and_values_that_are_none(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nii", **_srow(_rotated(20, 10)))
    normal = only(path).geometry.normal
    assert normal[2] == pytest.approx(np.cos(np.radians(20)) * np.cos(np.radians(10)))
    hu = scan_hu().astype(float)
    hu[3, 2, 1] = np.nan
    with pytest.raises(CvsctError, match=r"b\.nii: values that are not finite; "):
        read_all(write_scan(tmp_path / "b.nii", hu=hu, dtype="<f4"))


def test_a_bomb_is_refused_before_it_inflates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_scan(tmp_path / "a.nii.gz")
    with gzip.open(path) as stream:
        content = stream.read()
    with gzip.open(path, "wb") as packed:
        packed.write(content + bytes(2**23))
    with pytest.raises(CvsctError, match=r"^a\.nii\.gz: more bytes of voxels"):
        read_all(path)
    hollow = write_scan(tmp_path / "b.nii.gz", hu=np.full((40, 128, 128), -1000))
    monkeypatch.setattr(nifti_header, "read_voxels", None)
    with pytest.raises(CvsctError, match=r"^b\.nii\.gz: \d+ bytes declare 1310720 bytes"):
        read_all(hollow)


def test_damage_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nii.gz")
    whole = path.read_bytes()
    for length in range(0, len(whole), 211):
        path.write_bytes(whole[:length])
        with pytest.raises(CvsctError, match=r"^a\.nii\.gz: "):
            read_all(path)
    rng = np.random.default_rng(1)
    plain = gzip.decompress(whole)
    path = tmp_path / "b.nii"
    for _ in range(200):
        damaged = np.frombuffer(plain, np.uint8).copy()
        damaged[rng.integers(0, 400, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            only(path)
        except CvsctError as error:
            assert str(error).startswith("b.nii: ")


@pytest.mark.parametrize("whole", [True, False])
def test_the_twin_of_a_dicom_series_lies_where_the_series_lies(tmp_path: Path, whole: bool) -> None:
    """Affine by hand: NIfTI's mm are to the right and front, DICOM's to the left and back."""

    def change(ds: object, i: int) -> None:
        ds.PixelSpacing = [0.8, 0.6]
        if not whole:
            ds.RescaleSlope = "0.5"

    source = write_series(tmp_path / "in", 5, change=change)
    stack = open_stack(SeriesFiles("1.2.3.4", tuple(sorted(source.iterdir()))))
    write_nifti(stack, tmp_path / "twin.nii.gz")
    image = nib.load(tmp_path / "twin.nii.gz")
    expected = [[-0.6, 0, 0, 100], [0, -0.8, 0, 120], [0, 0, 5, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(image.affine, expected, atol=1e-5)
    np.testing.assert_allclose(image.header.get_qform(), expected, atol=1e-5)
    assert image.header.get_data_dtype() == (np.int16 if whole else np.float32)
    assert image.header["descrip"].item() == b"cvsct derived, research use only"
    hu = stored_values(5) * (1 if whole else 0.5) - 1024
    np.testing.assert_array_equal(np.asarray(image.dataobj), hu.transpose(2, 1, 0))
    back, volume = only(tmp_path / "twin.nii.gz"), stack.read()
    np.testing.assert_array_equal(back.hu, volume.hu)
    np.testing.assert_allclose(back.geometry.positions_mm, volume.geometry.positions_mm, atol=1e-4)


def test_a_twin_marks_padding_as_air(tmp_path: Path) -> None:
    values = stored_values(1)[0]
    values[0] = -2000
    source = write_series(tmp_path / "in", 1, change=lambda ds, i: signed(ds, values))
    write_nifti(open_stack(find_series(source)[0]), tmp_path / "a.nii.gz")
    assert (only(tmp_path / "a.nii.gz").hu[0, 0] == -1024).all()


def test_commands_take_nifti(run: Run, scans: Path, tmp_path: Path) -> None:
    for side in ("sharp", "soft"):
        (tmp_path / side).mkdir()
        write_converted(scans / side, tmp_path / side / "DOE.nii.gz")
    model = tmp_path / "model"
    code, _, err = run(
        "train", "spectrum", "--source", tmp_path / "sharp", "--target", tmp_path / "soft",
        "--out", model,
    )  # fmt: skip
    assert code == 0, err
    code, out, err = run("inspect", tmp_path / "sharp", "--json")
    assert code == 0, err
    (found,) = json.loads(out)
    assert (found["readable"], found["slices"], found["spacing_mm"]) == (True, 6, 5.0)
    code, _, err = run(
        "harmonize", tmp_path / "sharp" / "DOE.nii.gz", "--model", model, "--out", tmp_path / "out"
    )
    assert code == 0, err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (series,) = manifest["figures"]["series"]
    assert series["n_slices"] == 6
    assert "DOE" not in json.dumps(manifest)
    (written,) = (tmp_path / "out").rglob("*.nii.gz")
    assert written.name == "DOE_harmonized.nii.gz"
    assert json.loads((written.parent / "uid_map.json").read_text())["files"] == {
        "DOE.nii.gz": written.name
    }
    code, _, err = run(
        "harmonize", tmp_path / "sharp", "--model", model, "--out", tmp_path / "hashed",
        "--names", "hash",
    )  # fmt: skip
    assert code == 0, err
    (hashed,) = (tmp_path / "hashed").rglob("*.nii.gz")
    assert "DOE" not in hashed.name
    assert hashed.read_bytes() == written.read_bytes()
    from_dicom = tmp_path / "dicom"
    code, _, err = run(
        "harmonize", scans / "sharp", "--model", model, "--out", from_dicom, "--nifti"
    )
    assert code == 0, err
    (twin,) = from_dicom.rglob("*.nii.gz")
    derived = only(from_dicom)
    np.testing.assert_array_equal(only(twin).hu, derived.hu)
    np.testing.assert_array_equal(only(written).hu, derived.hu)
