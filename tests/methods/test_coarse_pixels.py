"""Methods that filter train on pixels of any size, and say what such pixels cannot show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.errors import GeometryError, TrainingError
from cvsct.core.volume import CTVolume
from cvsct.methods.base import RunOptions, TrainingRequest
from cvsct.methods.registry import find_method
from cvsct.methods.spectrum.domain_position import volume_position
from cvsct.model.bundle import Bundle
from tests.conftest import make_volume
from tests.support.commands import Run
from tests.support.dicom_files import write_series

METHODS = ("input", "histogram", "spectrum", "spectrum-plain", "band-energy")


def trunk_hu(seed: int, pixel_mm: float, noise_hu: float, slices: int = 6) -> np.ndarray:
    """An elliptic trunk of 300 mm with lungs, whatever the pixels."""
    rng = np.random.default_rng(seed)
    size = round(352 / pixel_mm)
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) * pixel_mm
    hu = np.full((slices, size, size), -1000.0)
    uneven = ndimage.gaussian_filter(rng.normal(0, 1, hu.shape), (0, 3, 3))
    inside = (x / 150) ** 2 + (y / 110) ** 2 < 1
    hu[:, inside] = 45 + 15 * (uneven / uneven.std())[:, inside]
    for side in (-1, 1):
        hu[:, ((x - side * 80) / 35) ** 2 + (y / 50) ** 2 < 1] = -850
    seen = hu + rng.normal(0, noise_hu, hu.shape)
    return np.maximum(np.rint(seen), -1024)


def trunk(seed: int, pixel_mm: float, noise_hu: float) -> CTVolume:
    return make_volume(trunk_hu(seed, pixel_mm, noise_hu), pixel_mm=pixel_mm)


def trained(name: str, source: list[CTVolume], target: list[CTVolume], notes: list[str]) -> Bundle:
    row = find_method(name)
    request = TrainingRequest(name, Path("m"), dict(row.settings), note=notes.append)
    bundle = row.train(source, target, request)
    assert isinstance(bundle, Bundle)
    assert all(np.isfinite(array).all() for array in bundle.weights.values())
    return bundle


@pytest.mark.parametrize("pixel_mm", [2.0, 2.2, 2.5, 3.0, 4.1, 5.5, 7.0])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_and_maps_both_ways(name: str, pixel_mm: float) -> None:
    source, target = trunk(1, pixel_mm, 25.0), trunk(2, pixel_mm, 10.0)
    notes: list[str] = []
    bundle = trained(name, [source], [target], notes)
    for reverse, volume in ((False, source), (True, target)):
        mapping = find_method(name).load(bundle, "b2a" if reverse else "a2b", RunOptions())
        if mapping.fit is not None:
            mapping = mapping.fit(volume)
        assert np.isfinite(mapping.run(volume)).all()
    said = [note for note in notes if f"pixels of {pixel_mm:.3g} mm" in note]
    assert len(said) == (pixel_mm > 2.3 and name in ("spectrum", "band-energy")), notes


@pytest.mark.parametrize(("source_mm", "target_mm"), [(0.9, 5.5), (5.5, 0.9), (1.4, 2.3)])
def test_one_side_alone_may_be_coarse(source_mm: float, target_mm: float) -> None:
    source, target = trunk(1, source_mm, 25.0), trunk(2, target_mm, 10.0)
    for name in ("spectrum", "spectrum-plain", "band-energy"):
        trained(name, [source], [target], [])


def test_a_side_may_mix_coarse_scans_with_fine_ones() -> None:
    """Coarse scans reach none of the band that the dose law is read off; fine ones do."""
    source = [trunk(1, 1.0, 25.0), trunk(3, 3.0, 25.0)]
    trained("spectrum", source, [trunk(2, 1.0, 10.0)], [])


def test_pixels_that_reach_hardly_any_frequency_are_refused_in_words() -> None:
    source, target = trunk(1, 10.0, 25.0), trunk(2, 10.0, 10.0)
    with pytest.raises(TrainingError, match="give scans reconstructed on a finer grid"):
        trained("spectrum", [source], [target], [])


def test_the_correction_that_is_left_out_changes_nothing() -> None:
    source, target = trunk(1, 3.0, 25.0), trunk(2, 3.0, 10.0)
    row = find_method("spectrum")
    bundles = [
        row.train([source], [target], TrainingRequest("spectrum", Path("m"), {"refine": refine}))
        for refine in (True, False)
    ]
    for name, array in bundles[0].weights.items():
        np.testing.assert_array_equal(array, bundles[1].weights[name])


def test_a_scan_without_texture_has_no_place_between_the_domains() -> None:
    f = np.linspace(0, 0.5, 21)
    with pytest.raises(GeometryError, match="pixels of 8 mm show no texture"):
        volume_position(trunk(1, 8.0, 25.0), f, -f, np.zeros_like(f), 40.0)


def test_the_command_says_in_one_line_what_it_leaves_out(run: Run, tmp_path: Path) -> None:
    for name, seed, noise_hu in (("a", 1, 25.0), ("b", 2, 10.0)):
        stored = (trunk_hu(seed, 5.5, noise_hu) + 1024).astype("<u2")
        write_series(tmp_path / name, stored=stored, series=f"1.5.{seed}", change=coarse)
    words = ("--source", tmp_path / "a", "--target", tmp_path / "b", "--out", tmp_path / "m")
    code, _, err = run("train", "band-energy", *words)
    assert code == 0, err
    assert err.count("pixels of 5.5 mm reach no band above 0.15 cycles/mm") == 1
    for more, scans in (((), "a"), (("--reverse",), "b")):
        out = tmp_path / f"derived-{scans}"
        code, _, err = run("harmonize", tmp_path / scans, "--model", tmp_path / "m", "--out", out,
                           *more)  # fmt: skip
        assert code == 0, err


def coarse(dataset: object, _: int) -> None:
    dataset.PixelSpacing = [5.5, 5.5]  # type: ignore[attr-defined]
