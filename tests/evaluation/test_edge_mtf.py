"""The transfer function of natural edges against Gaussian blurs of an analytic trunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.edge_mtf import edge_transfer, transfer_ratio
from cvsct.evaluation.image.edges import find_edges
from cvsct.evaluation.image.mean_image import MeanImage
from cvsct.evaluation.image.mtf import edge_transform
from tests.conftest import make_volume
from tests.support.bodies import noise, seen, trunk

PIXEL_MM = 0.7
BODIES = tuple(trunk(seed) for seed in (1, 2))


def scanned(sigma_px: float, noise_hu: float = 0.0, seed: int = 0, slices: int = 6) -> CTVolume:
    planes = [seen(BODIES[index % 2], sigma_px) for index in range(2)] * (slices // 2)
    hu = np.stack(planes)
    if noise_hu:
        hu = hu + noise(hu.shape, noise_hu, 0.3, np.random.default_rng(seed))
    return make_volume(hu, pixel_mm=PIXEL_MM)


def mtf50_per_mm(sigma_px: float) -> float:
    return float(np.sqrt(np.log(2) / 2) / np.pi / (sigma_px * PIXEL_MM))


@pytest.mark.parametrize("sigma_px", [0.5, 0.9])
@pytest.mark.parametrize(
    ("noise_hu", "mtf50_within", "mtf_within"), [(0.0, 0.015, 0.025), (80.0, 0.04, 0.05)]
)
def test_a_gaussian_blur_comes_back_from_skin_and_lung(
    sigma_px: float, noise_hu: float, mtf50_within: float, mtf_within: float
) -> None:
    measured = edge_transfer({"source": [scanned(sigma_px, noise_hu)]})
    assert set(measured) == {"skin", "lung"}
    for kind, contrast_hu in (("skin", 900.0), ("lung", 890.0)):
        edges = measured[kind]["source"]
        f = edges.transfer.f_per_mm
        assert edges.transfer.mtf50_per_mm == pytest.approx(
            mtf50_per_mm(sigma_px), rel=mtf50_within
        )
        below_nyquist = f < 0.5 / PIXEL_MM
        truth = np.exp(-2 * (np.pi * sigma_px * PIXEL_MM * f) ** 2)
        assert edges.transfer.mtf[below_nyquist] == pytest.approx(
            truth[below_nyquist], abs=mtf_within
        )
        assert edges.transfer.contrast_hu == pytest.approx(contrast_hu, rel=0.05)
        assert edges.n_edges > 60
        assert edges.length_mm == pytest.approx(edges.n_edges * 20 * PIXEL_MM)


def test_the_interval_holds_the_truth_and_narrows_without_noise() -> None:
    noisy = edge_transfer({"source": [scanned(0.7, 60.0)]})["skin"]["source"].mtf50.interval
    clean = edge_transfer({"source": [scanned(0.7)]})["skin"]["source"].mtf50.interval
    assert noisy is not None
    assert clean is not None
    bias = 1.03  # noise of 60 HU takes the figure up by 2 to 3 %, on all sides alike
    assert noisy[0] < mtf50_per_mm(0.7) * bias < noisy[1]
    assert clean[1] - clean[0] < (noisy[1] - noisy[0]) / 3


def test_sides_share_their_edges_and_anatomys_blur_cancels_in_their_ratio() -> None:
    """A blur of 0.6 px that is the body's own, under kernels of 0.5 and 0.8 px."""
    source = scanned(float(np.hypot(0.5, 0.6)), 30.0, seed=1)
    target = scanned(float(np.hypot(0.8, 0.6)), 10.0, seed=2)
    measured = edge_transfer({"source": [source], "target": [target]})["skin"]
    assert measured["source"].n_edges == measured["target"].n_edges
    ratio = transfer_ratio(measured["source"], measured["target"])
    f = measured["source"].transfer.f_per_mm
    truth = np.exp(-2 * (np.pi * PIXEL_MM * f) ** 2 * (0.5**2 - 0.8**2))
    is_known = np.isfinite(ratio) & (f < 0.35)
    assert is_known.sum() > 40
    assert ratio[is_known] == pytest.approx(truth[is_known], rel=0.05)
    assert np.isnan(ratio[measured["target"].transfer.mtf < 0.1]).all()


def test_clipped_air_is_told() -> None:
    volume = scanned(0.5, 60.0)
    clipped = volume.with_hu(np.maximum(volume.hu, -1024.0).astype(np.float32))
    measured = edge_transfer({"source": [volume], "target": [clipped]})["skin"]
    assert measured["target"].clipped_share > 0.2
    record = measured["target"].to_json()
    assert record["mtf10_per_mm"] is None or record["mtf10_per_mm"] > 0
    assert len(record["f_per_mm"]) == len(record["mtf"])


@pytest.mark.parametrize("kept_by", ["harmonized", "target", "neither"])
def test_air_cut_off_on_one_side_alone_does_not_look_like_a_blur(kept_by: str) -> None:
    sides = {"harmonized": scanned(0.77, 60.0, seed=2), "target": scanned(0.7, 60.0, seed=1)}
    cut = {
        side: [volume if side == kept_by else volume.with_hu(np.maximum(volume.hu, -1024.0))]
        for side, volume in sides.items()
    }
    for by_side in edge_transfer(cut).values():
        loss = by_side["harmonized"].mtf50.relative_to(by_side["target"].mtf50)
        assert loss.value == pytest.approx(0.7 / 0.77 - 1, abs=0.01)


def test_edges_are_smooth_pieces_that_point_at_tissue() -> None:
    volume = scanned(0.7, slices=2)
    edges = find_edges(MeanImage.of([volume]))
    for edge in edges:
        distance, hu = edge.profile(volume.hu)
        assert hu[distance > 5].min() > hu[distance < -5].max() + 300
        near = np.abs(distance) < 0.5
        assert abs(float(hu[near].mean()) + 450) < 250


def test_the_border_of_the_field_of_view_is_no_edge_of_the_body() -> None:
    volume = scanned(0.7, slices=2)
    padding = np.zeros(volume.hu.shape, dtype=bool)
    padding[:, :, 128:] = True
    padded = replace(volume, padding=padding, hu=np.where(padding, -1024, volume.hu))
    edges = find_edges(MeanImage.of([padded]))
    assert len(edges) > 20
    assert max(edge.middle_px[1] for edge in edges) < 128 - 8


def test_without_edges_there_is_no_figure() -> None:
    air = make_volume(np.full((2, 96, 96), -1000.0))
    assert edge_transfer({"target": [air]}) == {}
    assert edge_transfer({"target": []}) == {}
    with pytest.raises(EvaluationError, match="do not show the same slices"):
        edge_transfer({"source": [scanned(0.5)], "target": [air]})


def test_an_ideal_edge_modulates_fully() -> None:
    positions = np.arange(160) / 10 - 8
    f, curve = edge_transform((positions > 0.01).astype(np.float64), 1.0)
    assert curve[f < 0.5] == pytest.approx(1.0, abs=0.01)
