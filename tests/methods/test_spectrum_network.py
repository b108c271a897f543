"""`spectrum-network`: the network against PyTorch, what training measures, and what is left alone.

Worlds are those of `spectrum`: bodies half homogeneous and half of fine structure, whose noise has
a kernel of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from cvsct.core.errors import ModelError, UsageError
from cvsct.core.fourier import frequency_radius
from cvsct.core.volume import CTVolume
from cvsct.methods.base import TrainingRequest
from cvsct.methods.registry import find_method
from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.methods.spectrum_network import train
from cvsct.methods.spectrum_network.apply import (
    CONDITION,
    KEPT,
    NETWORK,
    load_repeated,
    load_spectrum_network,
    network_of,
)
from cvsct.methods.spectrum_network.gain_network import (
    DILATIONS,
    GainNetwork,
    is_complete,
    packaged_weights,
)
from cvsct.methods.spectrum_network.texture_condition import (
    BANDS,
    SCALED,
    TISSUES,
    TextureCondition,
    homogeneous,
    in_bands,
    texture_by_tissue,
)
from cvsct.methods.spectrum_network.train import TOLERANCE, train_spectrum_network
from cvsct.model.bundle import Bundle
from tests.conftest import make_volume
from tests.methods.test_separate_gains import world

PIXEL_MM = (0.68, 0.68)
KEEP_ALL = np.ones(BANDS.count)


def request(**settings: object) -> TrainingRequest:
    return TrainingRequest("spectrum-network", Path("unused"), settings=settings)


def quiet(seed: int = 2) -> CTVolume:
    """Of the softer scanner, whose noise is softer than its structure."""
    return world(seed, 0.3, 0.5, 18.0)


@cache
def two_vendors() -> Bundle:
    """Structure gets a little softer, noise much: what no single gain can do."""
    return train_spectrum_network([world(1, 0.15, 0.15, 25.0)], [quiet()], request())


def condition(seed: int) -> TextureCondition:
    return TextureCondition(*np.random.default_rng(seed).uniform(0, 3, (3, len(TISSUES), SCALED)))


def test_the_network_computes_what_pytorch_computes() -> None:
    """The same weights by another library, pads and scales where the training has them."""
    rng = np.random.default_rng(5)
    filtered, source = rng.normal(40, 30, (2, 60, 72)).astype(np.float32)
    told = condition(0)
    found = GainNetwork(packaged_weights(), told).change(filtered, source, PIXEL_MM, KEEP_ALL)

    w = {name: torch.from_numpy(array) for name, array in packaged_weights().items()}
    wide = [torch.from_numpy(np.pad(plane, 16, mode="reflect")) for plane in (filtered, source)]
    radius = frequency_radius(tuple(wide[0].shape), PIXEL_MM)
    shares = torch.from_numpy(np.stack([BANDS.share(b, radius) for b in range(BANDS.count)]))
    bands = [torch.fft.irfft2(torch.fft.rfft2(p)[None] * shares, s=p.shape).float() for p in wide]
    upper = torch.cat([bands[0][1:], bands[1][1:]])
    x = torch.cat([torch.asinh(upper / told.unit_hu), bands[0][:1] / 300])[None]
    hidden = torch.nn.functional.silu(
        torch.from_numpy(told.vector) @ w["conditions.0.weight"].T + w["conditions.0.bias"]
    )
    scales = (hidden @ w["conditions.2.weight"].T + w["conditions.2.bias"]).chunk(5)
    for layer, dilation in enumerate(DILATIONS):
        padded = torch.nn.functional.pad(x, [dilation] * 4, mode="reflect")
        weight, bias = w[f"convolutions.{layer}.weight"], w[f"convolutions.{layer}.bias"]
        y = torch.nn.functional.conv2d(padded, weight, bias, dilation=dilation)
        factor, offset = scales[layer][:, None, None].chunk(2)
        y = torch.nn.functional.silu(y * (1 + factor) + offset)
        x = x + y if layer else y
    gains = torch.tanh(torch.nn.functional.conv2d(x, w["gains.weight"], w["gains.bias"]))[0]
    wanted = (gains * upper).sum(0)[16:-16, 16:-16].numpy()
    assert np.abs(wanted).max() > 10
    assert np.abs(found - wanted).max() < 1e-3


def test_bands_of_the_change_are_kept_by_their_shares() -> None:
    rng = np.random.default_rng(6)
    filtered, source = rng.normal(40, 30, (2, 60, 72)).astype(np.float32)
    network = GainNetwork(packaged_weights(), condition(0))
    whole, none, *each = (
        network.change(filtered, source, PIXEL_MM, kept)
        for kept in (KEEP_ALL, 0 * KEEP_ALL, *np.eye(BANDS.count))
    )
    assert not none.any()
    assert np.abs(sum(each) - whole).max() < 1e-3
    assert min(band.std() for band in each[1:]) > 0.01


def test_bands_sum_to_the_image_and_texture_is_told_by_tissue() -> None:
    volume = quiet()
    assert np.abs(in_bands(volume).sum(axis=1) - volume.hu).max() < 0.01
    texture = texture_by_tissue([volume])
    assert texture.shape == (len(TISSUES), SCALED)
    bands = in_bands(volume)
    mask = homogeneous(bands[:, 0])
    wanted = np.log([bands[:, band][mask].std() for band in range(1, BANDS.count)])
    assert texture[0] == pytest.approx(wanted, abs=0.02)
    none = texture_by_tissue([make_volume(np.full((1, 64, 64), -1000.0), pixel_mm=0.7)])
    assert np.isfinite(none).all()


def test_energy_is_as_near_to_the_targets_as_the_filter_leaves_it() -> None:
    """By band, in homogeneous tissue of what was learned from: more of its change is not kept."""
    bundle = two_vendors()
    source, target = world(1, 0.15, 0.15, 25.0), quiet()
    for reverse, (learned, other) in ((False, (source, target)), (True, (target, source))):
        filtered, changed = (
            learned.with_hu(load(bundle, reverse)(learned))
            for load in (load_spectrum, load_spectrum_network)
        )
        wanted = texture_by_tissue([other])[0]
        mask = homogeneous(in_bands(filtered)[:, 0])
        levels = [
            np.log([in_bands(volume)[:, band][mask].std() for band in range(1, BANDS.count)])
            for volume in (filtered, changed)
        ]
        before, after = np.abs(np.array(levels) - wanted)
        assert np.all(after <= np.maximum(before, TOLERANCE) + 0.03), (before, after)
        assert np.abs(changed.hu - filtered.hu)[:, 100:230, 175:230].std() > 0.5, "structure too"


def test_each_slice_comes_out_as_if_it_were_alone() -> None:
    volume = world(7, 0.15, 0.15, 25.0)
    mapping = load_spectrum_network(two_vendors(), False).fitted_to(volume)
    whole = mapping(volume)
    for i in (7, 2):
        assert np.array_equal(mapping.run(volume.select([i]))[0], whole[i])
    assert mapping.engine is not None
    assert mapping.engine.name == "openvino"


def test_too_little_tissue_leaves_the_filter_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "LEAST_VOXELS", 10**9)
    told: list[str] = []
    bundle = train_spectrum_network(
        [world(1, 0.15, 0.15, 25.0)], [quiet()], replace(request(), note=told.append)
    )
    assert "too little homogeneous soft tissue" in bundle.training["network"]
    assert "too little homogeneous soft tissue" in told[-1]
    assert not network_of(bundle.weights)


def test_threads_share_a_mapping() -> None:
    volume = world(7, 0.15, 0.15, 25.0)
    mapping = load_spectrum_network(two_vendors(), False).fitted_to(volume)
    slices = [volume.select([i]) for i in range(6)]
    alone = [mapping.run(one) for one in slices]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(mapping.run, slices))
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


def test_air_and_padding_are_left_to_the_filter() -> None:
    volume = world(7, 0.15, 0.15, 25.0)
    filtered, changed = (
        load(two_vendors(), False)(volume) for load in (load_spectrum, load_spectrum_network)
    )
    assert np.array_equal(changed[:, :20, :20], filtered[:, :20, :20])
    assert changed.min() >= -1024
    assert not np.array_equal(changed, filtered)


def test_a_scan_of_the_target_stays_as_it_is() -> None:
    volume = quiet(9)
    assert np.array_equal(load_spectrum_network(two_vendors(), False)(volume), volume.hu)


def test_one_kernel_leaves_the_filter_alone() -> None:
    told: list[str] = []
    bundle = train_spectrum_network(
        [world(3, 0.15, 0.15, 25.0)],
        [world(4, 0.4, 0.4, 25.0)],
        replace(request(), note=told.append),
    )
    assert "one linear kernel explains both" in bundle.training["network"]
    assert len(told) == 1
    assert told[0].startswith("the network is not used: one linear kernel")
    assert not network_of(bundle.weights)
    volume = world(5, 0.15, 0.15, 25.0)
    mapping = load_spectrum_network(bundle, False)
    assert mapping.engine is None
    assert np.array_equal(mapping(volume), load_spectrum(bundle, False)(volume))


def test_pixels_that_it_has_not_learned_from_leave_the_filter_alone() -> None:
    def with_pixels(volume: CTVolume, pixel_mm: float) -> CTVolume:
        return replace(volume, geometry=replace(volume.geometry, pixel_mm=(pixel_mm, pixel_mm)))

    sides = [[with_pixels(each, 0.9)] for each in (world(1, 0.15, 0.15, 25.0), quiet())]
    bundle = train_spectrum_network(*sides, request())
    assert "pixels of 0.55 to 0.83 mm" in bundle.training["network"]
    coarse = with_pixels(world(7, 0.15, 0.15, 25.0), 0.9)
    mapping = load_spectrum_network(two_vendors(), False).fitted_to(coarse)
    assert np.array_equal(mapping(coarse), load_spectrum(two_vendors(), False)(coarse))
    assert "pixels of 0.9 x 0.9 mm: the network is left out" in mapping.remark
    usual = world(7, 0.15, 0.15, 25.0)
    assert "left out" not in load_spectrum_network(two_vendors(), False).fitted_to(usual).remark


def test_the_model_holds_its_network_and_its_card_says_what_was_kept(tmp_path: Path) -> None:
    bundle = two_vendors()
    assert is_complete(network_of(bundle.weights), len(condition(0).vector))
    bundle.write(tmp_path / "model")
    read = Bundle.read(tmp_path / "model")
    volume = world(7, 0.15, 0.15, 25.0).select([0, 1])
    mappings = [load_spectrum_network(replace(b, sha256="same"), False) for b in (bundle, read)]
    assert np.array_equal(*(mapping(volume) for mapping in mappings))
    assert "network_kept_a2b" in read.card()
    assert "simulated" in read.card()


def test_repeated_fits_have_the_network_too() -> None:
    sides = (
        [replace(world(s, 0.15, 0.15, 25.0, slices=3), patient=str(s)) for s in (1, 11)],
        [replace(world(s, 0.3, 0.5, 18.0, slices=3), patient=str(s)) for s in (2, 12)],
    )
    bundle = train_spectrum_network(*sides, request())
    repeated = load_repeated(bundle, False)
    assert len(repeated) == 4
    volume = world(7, 0.15, 0.15, 25.0).select([0])
    own = load_spectrum_network(bundle, False)(volume)
    others = [each.mapping(volume) for each in repeated]
    spread = np.std(others, axis=0)[0, 100:230, 100:230].mean()
    assert 0 < spread < np.abs(own - volume.hu)[0, 100:230, 100:230].mean()


@pytest.mark.parametrize("name", [CONDITION, KEPT, NETWORK + "gains.bias"])
def test_a_model_that_lacks_an_array_or_holds_another_shape_says_so(name: str) -> None:
    bundle = two_vendors()
    rest = {key: array for key, array in bundle.weights.items() if key != name}
    with pytest.raises(ModelError, match="train it again"):
        load_spectrum_network(replace(bundle, weights=rest), False)
    cut = bundle.weights | {name: bundle.weights[name][..., :-1]}
    with pytest.raises(ModelError, match="do not fit each other"):
        load_spectrum_network(replace(bundle, weights=cut), False)


def test_one_gain_is_refused() -> None:
    with pytest.raises(UsageError, match=r"gains=one.*spectrum-plain"):
        train_spectrum_network([quiet()], [quiet()], request(gains="one"))


def test_it_needs_images() -> None:
    assert find_method("spectrum-network").fit is None
