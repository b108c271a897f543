"""VGG features and the domain loss on them: random weights, all file formats, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import Tensor, nn

from cvsct.core.errors import TrainingError
from cvsct.core.volume import HUWindow
from cvsct.networks.vgg import Network
from cvsct.training.losses import gram
from cvsct.training.texture_loss import TextureLoss, TextureLossConfig
from cvsct.training.vgg_weights import load_vgg
from tests.support.vgg_files import as_keras

PLACES = {
    "vgg16": {0: "1_1", 2: "1_2", 5: "2_1", 7: "2_2", 10: "3_1", 12: "3_2", 14: "3_3", 17: "4_1"},
    "vgg19": {
        **{0: "1_1", 2: "1_2", 5: "2_1", 7: "2_2", 10: "3_1", 12: "3_2", 14: "3_3"},
        **{16: "3_4", 19: "4_1"},
    },
}
"""torchvision's number of each convolution of the first blocks, as its source has them."""

WIDTH = {"1": 64, "2": 128, "3": 256, "4": 512}
MEAN_RGB = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
SD_RGB = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    """Random weights of each network up to relu4_1, as torchvision keeps them."""
    source = torch.Generator().manual_seed(0)
    found: dict[str, dict[str, Tensor]] = {}
    for network, places in PLACES.items():
        channels = 3
        state = found.setdefault(network, {})
        for number, place in places.items():
            width = WIDTH[place[0]]
            scale = (2 / (9 * channels)) ** 0.5
            kernel = torch.randn(width, channels, 3, 3, generator=source) * scale
            state[f"features.{number}.weight"] = kernel
            state[f"features.{number}.bias"] = torch.randn(width, generator=source) * 0.1
            channels = width
        state["classifier.0.weight"] = torch.zeros(1)
    return found


def torchvision_file(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, folder / "vgg.pth")
    return folder / "vgg.pth"


def npz_file(folder: Path, network: str, state: dict[str, Tensor]) -> Path:
    """The same network in the other convention: BGR in 0..255, only the mean taken off.

    (x - m) / s of the one is (255 x - 255 m) / (255 s) of the other, and 255 m is not quite the
    mean that is taken off there: the rest goes into the bias.
    """
    arrays = {}
    for number, place in PLACES[network].items():
        kernel, bias = (state[f"features.{number}.{part}"].double() for part in ("weight", "bias"))
        if number == 0:
            kernel = kernel / (255 * SD_RGB)
            off = torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1) - 255 * MEAN_RGB
            bias = bias + (kernel * off).sum(dim=(1, 2, 3))
            kernel = kernel.flip(1)
        arrays[f"block{place[0]}_conv{place[2]}/kernel"] = kernel.float().numpy()
        arrays[f"block{place[0]}_conv{place[2]}/bias"] = bias.float().numpy()
    np.savez(folder / "vgg.npz", **arrays)
    return folder / "vgg.npz"


def by_torchvision(network: str, state: dict[str, Tensor], grey: Tensor) -> Tensor:
    """relu4_1 of torchvision's own arrangement of layers."""
    layers: list[nn.Module] = []
    for number, place in PLACES[network].items():
        kernel = state[f"features.{number}.weight"]
        if place.endswith("_1") and place != "1_1":
            layers.append(nn.MaxPool2d(2, 2))
        assert len(layers) == number
        layers += [nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1), nn.ReLU()]
    features = nn.Sequential(*layers)
    wanted = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features")}
    features.load_state_dict(wanted)
    with torch.no_grad():
        found: Tensor = features((grey.expand(-1, 3, -1, -1) - MEAN_RGB) / SD_RGB)
    return found


@pytest.mark.parametrize(("network", "third"), [("vgg16", "relu3_3"), ("vgg19", "relu3_4")])
def test_all_formats_of_the_same_weights_give_the_same_features(
    states: Any, tmp_path: Path, network: Network, third: str
) -> None:
    state = states[network]
    layers = ["relu4_1", "relu1_2", third]
    published = load_vgg(torchvision_file(tmp_path, state), layers, network)
    own_file = npz_file(tmp_path, network, state)
    own = load_vgg(own_file, layers, network)
    keras = load_vgg(as_keras(own_file, tmp_path / "vgg.h5"), layers, network)
    grey = torch.rand(2, 1, 32, 40, generator=torch.Generator().manual_seed(1))
    found, other = published(grey), own(grey)
    assert [tuple(m.shape[1:]) for m in found] == [(64, 32, 40), (256, 8, 10), (512, 4, 5)]
    assert torch.allclose(found[-1], by_torchvision(network, state, grey), atol=1e-4)
    assert torch.allclose(found[0][..., 2:-2, 2:-2], other[0][..., 2:-2, 2:-2], atol=1e-5)
    for a, b in zip(found, other, strict=True):  # zero padding is 0.4 of 255 apart in blue
        assert torch.allclose(a, b, atol=0.02 * float(a.std()))
    assert all(torch.equal(a, b) for a, b in zip(keras(grey), other, strict=True))


def test_the_domain_loss_by_hand_in_float64(vgg_weights: Path) -> None:
    """One layer: HU window, preprocessing, convolution, ReLU, Gram, mean square, its unit."""
    config = TextureLossConfig(
        weights=str(vgg_weights), layers=("relu1_1",), window_hu=(-150.0, 250.0), scale="target"
    )
    loss = TextureLoss(config, HUWindow(-1000.0, 900.0))
    rng = np.random.default_rng(0)
    fake_hu, real_hu = rng.uniform(-300, 400, (2, 1, 1, 7, 9))
    with np.load(vgg_weights) as arrays:
        kernel = arrays["block1_conv1/kernel"].astype(np.float64)

    def gram(hu: np.ndarray) -> np.ndarray:
        grey = np.clip((hu[0, 0] + 150) / 400, 0, 1)
        bgr = np.stack([255 * grey - mean for mean in (103.939, 116.779, 123.68)])
        padded = np.pad(bgr, ((0, 0), (1, 1), (1, 1)))
        maps = np.stack([correlate(padded, each, mode="valid")[0] for each in kernel])
        flat = np.maximum(maps, 0).reshape(64, -1)
        product: np.ndarray = flat @ flat.T / (64 * 7 * 9)
        return product

    wanted = ((gram(fake_hu) - gram(real_hu)) ** 2).mean() / (gram(real_hu) ** 2).mean()
    fake, real = (torch.from_numpy((hu + 50) / 950).float() for hu in (fake_hu, real_hu))
    assert loss(fake, real, "b").item() == pytest.approx(wanted, rel=1e-4)


def test_layers_that_do_not_exist_are_refused_with_the_list(vgg_weights: Path) -> None:
    with pytest.raises(TrainingError, match=r"VGG16 has no layers \['relu3_4'\].*relu3_3, relu4_1"):
        load_vgg(vgg_weights, ["relu3_4", "relu1_1"])
    with pytest.raises(TrainingError, match="at least one layer of VGG19"):
        load_vgg(vgg_weights, [], "vgg19")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features.2.weight": torch.zeros(3, 3, 64, 64)}, r"shape \(3, 3, 64, 64\), expected \(6"),
        (
            {"features.5.bias": torch.zeros(64)},
            r"features.5.bias has shape \(64,\), expected \(128",
        ),
        ({"features.0.bias": torch.full((64,), torch.nan)}, "not finite"),
        ({"features.2.weight": None}, "no features.2"),
        ({"features.2.bias": None}, "no features.2.bias"),
        ({"features.16.weight": torch.zeros(1)}, "this network has no features.16"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    states: Any, tmp_path: Path, change: dict[str, Tensor | None], words: str
) -> None:
    state = {k: v for k, v in {**states["vgg16"], **change}.items() if v is not None}
    with pytest.raises(TrainingError, match=f"not VGG16 convolution weights .*{words}"):
        load_vgg(torchvision_file(tmp_path, state), ["relu2_1"])


def test_the_other_networks_weights_are_refused(states: Any, tmp_path: Path) -> None:
    for path in (
        torchvision_file(tmp_path, states["vgg16"]),
        npz_file(tmp_path, "vgg16", states["vgg16"]),
        as_keras(tmp_path / "vgg.npz", tmp_path / "vgg.h5"),
    ):
        with pytest.raises(TrainingError, match="not VGG19"):
            load_vgg(path, ["relu1_1"], "vgg19")


@pytest.mark.parametrize("name", ["x.npz", "x.pth", "x.h5", "x.hdf5"])
@pytest.mark.parametrize(
    "content", [b"", b"no weights", b"PK\x03\x04 half a zip", b"\x89HDF\r\n\x1a\n half"]
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=r"not VGG16 convolution weights \("):
        load_vgg(tmp_path / name, ["relu1_1"])


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "whole.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("whole.pth", "list.pth"):
        with pytest.raises(TrainingError, match="not VGG16 convolution weights") as caught:
            load_vgg(tmp_path / name, ["relu1_1"])
        assert "\n" not in str(caught.value)


@pytest.mark.shared
def test_vgg_features_match_the_published_network(shared: Path) -> None:
    """First-layer values by hand: a 3x3 correlation of BGR minus the mean."""
    path = shared / "weights" / "vgg16_imagenet_conv_float16.npz"
    network = load_vgg(path, ["relu1_1", "relu3_1"])
    grey = torch.rand(1, 1, 16, 16, dtype=torch.float32)
    maps = network(grey)
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 16, 16), (256, 4, 4)]
    with np.load(path) as arrays:
        kernel = arrays["block1_conv1/kernel"].astype(np.float64)
        bias = arrays["block1_conv1/bias"].astype(np.float64)
    mean = np.array([103.939, 116.779, 123.68])[:, None, None]
    around = grey[0, 0, 4:7, 8:11].double().numpy()[None] * 255 - mean
    by_hand = np.maximum((kernel * around).sum(axis=(1, 2, 3)) + bias, 0)
    assert maps[0][0, :, 5, 9].numpy() == pytest.approx(by_hand, abs=2e-3)


@pytest.mark.shared
def test_the_file_of_keras_holds_the_same_numbers_in_the_order_that_is_read(
    shared: Path, tmp_path: Path
) -> None:
    """Against what Keras prints of its own file: the first and last three kernels, top left."""
    h5 = as_keras(shared / "weights" / "vgg16_imagenet_conv_float16.npz", tmp_path / "vgg16.h5")
    printed = [
        [0.429470569, 0.117273867, 0.0340129584, -0.132241577, -0.0533475243, 0.00757738389],
        [0.550379455, 0.0208774377, 0.0988311544, -0.0848205537, -0.0511389151, 0.0374943428],
        [0.480015397, -0.172696680, 0.0375577137, -0.127135560, -0.0502991639, 0.0348965675],
    ]
    kernel = next(load_vgg(h5, ["relu1_1"]).convolutions[0].parameters()).detach().numpy()
    top_left = np.concatenate([kernel[:3, :, 0, 0], kernel[-3:, :, 0, 0]]).T
    assert top_left == pytest.approx(np.array(printed), abs=2.5e-4)  # half a float16 at 0.55


@pytest.mark.shared
def test_gram_matrices_are_the_same_from_both_files(shared: Path, tmp_path: Path) -> None:
    npz = shared / "weights" / "vgg16_imagenet_conv_float16.npz"
    h5 = as_keras(npz, tmp_path / "vgg16.h5")
    grey = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    layers = ["relu2_1", "relu5_1"]
    for own, keras in zip(load_vgg(npz, layers)(grey), load_vgg(h5, layers)(grey), strict=True):
        assert torch.equal(gram(own), gram(keras))


def test_the_own_network_needs_no_file_of_others_and_tells_noise_grains_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CVSCT_VGG_WEIGHTS", str(tmp_path / "none.npz"))
    config = TextureLossConfig(
        network="ct-texture", layers=("relu2_1", "relu2_2"), window_hu=(-150, 250)
    )
    assert config.wanted_weights() is None
    loss = TextureLoss(config, HUWindow())
    assert loss.weights_origin is None
    noise = torch.randn(24, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    coarse = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    white, grainy = (  # 50 HU with a noise of 20 HU, on the window from -1000 to 900 HU
        (100 + 20 * images / images.std()) / 950 for images in (noise, coarse)
    )
    first, second = white.split(12)
    distances = [
        [float((a.mean(0) - b.mean(0)).square().sum()) for a, b in zip(*grams, strict=True)]
        for grams in (
            (loss.grams(first), loss.grams(second)),
            (loss.grams(white), loss.grams(grainy)),
        )
    ]
    for same, other in zip(*distances, strict=True):
        assert other > 10 * same
    with pytest.raises(TrainingError, match=r"domain\.layers: CT-TEXTURE has no layers .*relu5_1"):
        TextureLoss(TextureLossConfig(network="ct-texture"), HUWindow())
