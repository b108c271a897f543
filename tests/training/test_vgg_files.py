"""VGG weights: where they are found, the question before a download, refused files, attribution."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cvsct.core import platform
from cvsct.core.download import DownloadOptions, PublishedFile
from cvsct.core.errors import MissingExtraError, TrainingError
from cvsct.core.volume import HUWindow
from cvsct.training.cyclegan.settings import cycle_config
from cvsct.training.paired.settings import paired_config
from cvsct.training.texture_loss import TextureLoss, TextureLossConfig
from cvsct.training.vgg_files import (
    PUBLISHED,
    TORCHVISION,
    WEIGHTS_VARIABLE,
    WantedWeights,
    describe_weights,
    find_weights,
    locate_weights,
)
from cvsct.training.vgg_weights import load_vgg
from tests.support.file_server import FileServer, serve
from tests.support.vgg_files import NAMES, NESTED_NAMES, as_keras


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this program's weights, where no variable and no file is anywhere."""
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "cvsct" / "weights"


@pytest.fixture
def server(
    vgg_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    """A server with a small VGG16 in the place of Keras's file."""
    content = as_keras(vgg_weights, tmp_path / "published.h5").read_bytes()
    monkeypatch.delenv("http_proxy", raising=False)
    with serve(content) as state:
        own = PublishedFile(
            f"{state.address}/{PUBLISHED['vgg16'].name}",
            len(content),
            {"sha256": hashlib.sha256(content).hexdigest()},
            "the authors",
            "the license",
        )
        monkeypatch.setitem(PUBLISHED, "vgg16", own)
        yield state


def test_without_weights_the_error_names_all_ways(cache: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        TextureLoss(TextureLossConfig(network="vgg19"), HUWindow())
    message = str(caught.value)
    ways = ("--yes", "domain.download=True", "domain.weights=", WEIGHTS_VARIABLE, "80.1 MB")
    for way in (*ways, PUBLISHED["vgg19"].url, str(cache), TORCHVISION["vgg19"], "`cyclegan`"):
        assert way in message
    assert not cache.exists()
    with pytest.raises(TrainingError, match=r"nowhere\.npz: no such file"):
        find_weights(WantedWeights(path="nowhere.npz"))


def test_a_setting_goes_before_the_variable_then_torchs_cache_then_our_own(
    cache: Path, vgg_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert locate_weights(WantedWeights()) is None
    own = cache / PUBLISHED["vgg16"].name
    torchs = tmp_path / "torch" / "hub" / "checkpoints" / TORCHVISION["vgg16"]
    for path in (own, torchs):
        path.parent.mkdir(parents=True)
        path.touch()
        assert find_weights(WantedWeights()) == path
    assert locate_weights(WantedWeights("vgg19")) is None
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(vgg_weights))
    assert find_weights(WantedWeights()) == vgg_weights
    named = tmp_path / "named.npz"
    named.touch()
    assert find_weights(WantedWeights(path=str(named))) == named


@pytest.mark.parametrize(
    ("system", "variables", "folder"),
    [
        ("linux", {}, "home/.cache/cvsct"),
        ("linux", {"LOCALAPPDATA": "local"}, "home/.cache/cvsct"),
        ("darwin", {}, "home/Library/Caches/cvsct"),
        ("darwin", {"XDG_CACHE_HOME": "xdg"}, "xdg/cvsct"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/cvsct"),
        ("win32", {}, "home/AppData/Local/cvsct"),
    ],
)
def test_the_cache_is_where_the_system_has_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    system: str,
    variables: dict[str, str],
    folder: str,
) -> None:
    monkeypatch.setattr(platform.sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, str(tmp_path / value))
    assert platform.cache_folder() == tmp_path / folder
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert platform.cache_folder().is_absolute()


def test_a_question_names_size_source_license_and_place_and_no_downloads_nothing(
    cache: Path, server: FileServer
) -> None:
    questions: list[str] = []

    def decline(question: str) -> bool:
        questions.append(question)
        return False

    with pytest.raises(TrainingError, match="--yes"):
        find_weights(WantedWeights(), DownloadOptions(decline))
    [question] = questions
    published = PUBLISHED["vgg16"]
    facts = (published.megabytes, published.url, "the authors", "the license", str(cache))
    assert all(fact in question for fact in facts)
    assert server.requests == []
    assert not cache.exists()


@pytest.mark.parametrize("how", ["answer", "setting"])
def test_with_consent_the_file_is_there_and_nothing_is_asked_again(
    cache: Path, server: FileServer, how: str
) -> None:
    def refuse_to_be_asked(question: str) -> bool:
        raise AssertionError(question)

    confirm = (lambda _: True) if how == "answer" else refuse_to_be_asked
    wanted = WantedWeights(download=how == "setting")
    path = find_weights(wanted, DownloadOptions(confirm))
    assert path == cache / PUBLISHED["vgg16"].name
    assert path.read_bytes() == server.content
    assert find_weights(WantedWeights(), DownloadOptions(refuse_to_be_asked)) == path
    assert len(server.requests) == 1
    load_vgg(path, ["relu2_1"])


def test_a_dry_run_tells_and_downloads_nothing(cache: Path, server: FileServer) -> None:
    notes: list[str] = []
    find_weights(WantedWeights(), DownloadOptions(lambda _: True, dry_run=True, note=notes.append))
    assert "would be downloaded" in notes[0]
    assert server.requests == []
    assert not cache.exists()


def test_offline_the_error_says_what_to_get_and_where_to_put_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:9/{PUBLISHED['vgg16'].name}"
    monkeypatch.setitem(PUBLISHED, "vgg16", replace(PUBLISHED["vgg16"], url=url))
    with pytest.raises(TrainingError) as caught:
        find_weights(WantedWeights(setting="vgg", download=True))
    place = cache / PUBLISHED["vgg16"].name
    for words in (url, str(place), "--set vgg.weights=FILE", WEIGHTS_VARIABLE):
        assert words in str(caught.value)
    assert not place.exists()


def test_only_trainings_that_use_the_weights_want_them() -> None:
    assert cycle_config("cpu", {"weight_domain": 0.0}).wanted_weights() is None
    assert cycle_config("cpu", {"domain.network": "vgg19"}).wanted_weights() == WantedWeights(
        "vgg19"
    )
    assert paired_config("cpu", {}).wanted_weights() is None
    vgg = {"generator.architecture": "vgg-unet", "vgg.download": True}
    assert paired_config("cpu", vgg).wanted_weights() == WantedWeights(
        "vgg16", download=True, setting="vgg"
    )


def test_without_h5py_the_extra_is_named_before_anything_is_asked_or_downloaded(
    cache: Path, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    named = str(tmp_path / "published.h5")
    for wanted in (WantedWeights(download=True), WantedWeights(path=named)):
        with pytest.raises(MissingExtraError, match=r"cvsct\[train\]"):
            find_weights(wanted)
    assert server.requests == []


def test_a_file_is_attributed_by_its_hash(cache: Path, server: FileServer, tmp_path: Path) -> None:
    elsewhere = tmp_path / "renamed.h5"
    elsewhere.write_bytes(server.content)
    origin = describe_weights(elsewhere, "vgg16", "in the loss")
    assert (origin["source"], origin["license"]) == ("the authors", "the license")
    assert origin["sha256"] == hashlib.sha256(server.content).hexdigest()
    named_alike = tmp_path / PUBLISHED["vgg16"].name
    named_alike.write_bytes(server.content[:-1] + b"?")
    assert describe_weights(named_alike, "vgg16", "in the loss")["license"] == "unknown"


@pytest.mark.parametrize("names", [NAMES, NESTED_NAMES])
@pytest.mark.parametrize("under", ["", "model_weights/"])
def test_arrays_are_found_by_whatever_version_of_keras_they_were_named(
    vgg_weights: Path, tmp_path: Path, names: tuple[str, str], under: str
) -> None:
    kernel, bias = (under + name for name in names)
    path = as_keras(vgg_weights, tmp_path / "vgg.hdf5", (kernel, bias))
    grey = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    layers = ["relu1_2", "relu2_1"]
    own, keras = load_vgg(vgg_weights, layers)(grey), load_vgg(path, layers)(grey)
    assert all(torch.equal(a, b) for a, b in zip(own, keras, strict=True))


def _external_link(file: h5py.File) -> None:
    file["block1_conv1/extra"] = h5py.ExternalLink("/etc/hostname", "/")


def _soft_link(file: h5py.File) -> None:
    file["block2_conv1/extra"] = h5py.SoftLink("/block1_conv1")


def _circle(file: h5py.File) -> None:
    for number in range(50):
        file[f"other/{number}"] = file["/"].require_group("other")


def _other_file(file: h5py.File) -> None:
    del file["block1_conv1/block1_conv1_b_1:0"]
    file.create_dataset(
        "block1_conv1/block1_conv1_b_1:0", (64,), "f4", external=[("/etc/hostname", 0, 256)]
    )


def _virtual(file: h5py.File) -> None:
    del file["block1_conv1/block1_conv1_b_1:0"]
    layout = h5py.VirtualLayout((64,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "bias", (64,))
    file.create_virtual_dataset("block1_conv1/block1_conv1_b_1:0", layout)


def _huge(file: h5py.File) -> None:
    file.create_dataset("block9_conv9/kernel", (3, 3, 2**14, 2**14), "f4", chunks=(3, 3, 64, 64))


def _huge_chunk(file: h5py.File) -> None:
    file.create_dataset(
        "block9_conv9/bias", (1,), "f4", chunks=(2**29,), maxshape=(None,), compression="gzip"
    )


def _references(file: h5py.File) -> None:
    del file["block1_conv1/block1_conv1_b_1:0"]
    file["block1_conv1/block1_conv1_b_1:0"] = np.array([file["/"].ref] * 64, h5py.ref_dtype)


def _named_type(file: h5py.File) -> None:
    file["block1_conv1/type"] = np.dtype("f4")


def _second_kernel(file: h5py.File) -> None:
    file["block1_conv1/kernel"] = np.zeros((3, 3, 3, 64), "f4")


def _not_finite(file: h5py.File) -> None:
    file["block1_conv1/block1_conv1_b_1:0"][3] = np.nan


def _too_large_for_float32(file: h5py.File) -> None:
    del file["block1_conv1/block1_conv1_b_1:0"]
    file["block1_conv1/block1_conv1_b_1:0"] = np.full(64, 1e300)


def _order_of_theano(file: h5py.File) -> None:
    kernel = file["block1_conv1/block1_conv1_W_1:0"][()]
    del file["block1_conv1/block1_conv1_W_1:0"]
    file["block1_conv1/block1_conv1_W_1:0"] = kernel.transpose(3, 2, 0, 1)


def _one_more(file: h5py.File) -> None:
    file["block3_conv4/kernel"] = np.zeros((3, 3, 256, 256), "f4")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_external_link, "block1_conv1/extra is a link"),
        (_soft_link, "block2_conv1/extra is a link"),
        (_circle, "more than 2000 arrays and groups"),
        (_other_file, "values in other files"),
        (_virtual, "values in other files"),
        (_huge, "more than 1073741824"),
        (_huge_chunk, "more than 1073741824"),
        (_references, "expected floating point"),
        (_named_type, "block1_conv1/type is a Datatype"),
        (_second_kernel, "expected one array of four axes"),
        (_not_finite, "not finite"),
        (_too_large_for_float32, "not finite"),
        (_order_of_theano, "has shape"),
        (_one_more, "no block3_conv4"),
    ],
)
def test_an_hdf5_file_that_is_not_plain_weights_is_refused(
    vgg_weights: Path, tmp_path: Path, damage: Callable[[h5py.File], None], words: str
) -> None:
    path = as_keras(vgg_weights, tmp_path / "vgg.h5")
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(TrainingError, match=f"not VGG16 convolution weights .*{words}"):
        load_vgg(path, ["relu2_1"])
