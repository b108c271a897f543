"""Shared by all tests: shapes and types checked at run time, small volumes, the real CT's place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from beartype import BeartypeConf
from beartype.claw import beartype_packages
from jaxtyping import install_import_hook
from scipy import ndimage

PACKAGE = Path(__file__).resolve().parents[1] / "src"
UNCHECKED = ("from numba import", "typer.Context")
"""Compiled code takes no wrapper, and what typer passes is no instance of its own type."""

CHECKED = [
    (".".join(path.relative_to(PACKAGE).with_suffix("").parts), text)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
    and not any(name in (text := path.read_text(encoding="utf-8")) for name in UNCHECKED)
]
ALIAS = re.compile(r"^(\w+) = .*\[(?:np\.ndarray|Tensor), \"", re.MULTILINE)
IMPORTED = re.compile(r"^ *from cvsct[\w.]* import (\([^)]*\)|.*)", re.MULTILINE)
ALIASES = {alias for _, text in CHECKED for alias in ALIAS.findall(text)}
SHAPED = [
    name
    for name, text in CHECKED
    if "jaxtyping" in text
    or "TYPE_CHECKING" in text
    or ALIASES & set(re.findall(r"\w+", " ".join(IMPORTED.findall(text))))
]
"""Modules whose annotations have shapes, or names that only type checkers import."""

# Before the first import of what they check. Where no annotation has a shape, beartype alone
# checks the same types in a fraction of a call's time.
install_import_hook(SHAPED, "beartype.beartype")
beartype_packages(
    [name for name, _ in CHECKED if name not in SHAPED], conf=BeartypeConf(claw_is_pep526=False)
)

import cvsct  # noqa: E402
from cvsct import cli  # noqa: E402
from cvsct.core.volume import Acquisition, CTVolume, Geometry  # noqa: E402
from tests.support.commands import Run  # noqa: E402
from tests.support.dicom_files import write_series  # noqa: E402
from tests.support.study_fixtures import (  # noqa: E402, F401
    done,
    places,
    planned,
    quick,
    quick_done,
    reported,
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep matplotlib's list of fonts between runs: each new cache would be seconds of reading."""
    cache = getattr(config, "cache", None)
    if cache is not None:
        os.environ.setdefault("MPLCONFIGDIR", str(cache.mkdir("matplotlib")))


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real CT, odd DICOM files and VGG weights."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: real CT and weights are not part of the repository")
    return SHARED


def make_volume(hu: np.ndarray, spacing_mm: float = 5.0, pixel_mm: float = 0.7) -> CTVolume:
    """An axial volume around an array of HU."""
    positions = np.zeros((len(hu), 3))
    positions[:, 2] = np.arange(len(hu)) * spacing_mm
    return CTVolume(
        hu=hu.astype(np.float32),
        geometry=Geometry(
            positions_mm=positions,
            row_direction=(1.0, 0.0, 0.0),
            column_direction=(0.0, 1.0, 0.0),
            pixel_mm=(pixel_mm, pixel_mm),
            thickness_mm=spacing_mm,
            frame_of_reference="1.2.3",
        ),
        acquisition=Acquisition("Maker", "Scanner", "K1", 120.0),
        series_uid="1.2.3.4",
    )


@pytest.fixture(scope="session")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two first blocks of a VGG16 with random weights, in the format of the real file."""
    rng = np.random.default_rng(0)
    arrays = {}
    channels = 3
    for name, width in (("block1_conv1", 64), ("block1_conv2", 64), ("block2_conv1", 128)):
        scale = (2 / (9 * channels)) ** 0.5
        arrays[f"{name}/kernel"] = rng.normal(0, scale, (width, channels, 3, 3)).astype(np.float16)
        arrays[f"{name}/bias"] = np.zeros(width, np.float16)
        channels = width
    path = tmp_path_factory.mktemp("vgg") / "vgg.npz"
    np.savez(path, **arrays)
    return path


def phantom_hu(seed: int, blur_px: float, slices: int = 6, size_px: int = 224) -> np.ndarray:
    """A trunk with lungs and uneven tissue, seen with noise of a kernel's sharpness.

    Seeds differ in anatomy and noise; `blur_px` is the kernel.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    hu = np.full((slices, size_px, size_px), -1000.0)
    blobs = ndimage.gaussian_filter(rng.normal(0, 1, hu.shape), (1, 8, 8))
    width, height = rng.uniform(0.88, 0.95), rng.uniform(0.75, 0.85)
    inside = (x / width) ** 2 + (y / height) ** 2 < 1
    hu[:, inside] = 30 + 40 * (blobs / blobs.std())[:, inside]
    for side in (-1, 1):
        lung = ((x - side * 0.5) / 0.2) ** 2 + ((y + 0.35) / 0.22) ** 2 < 1
        hu[:, lung] = -820
    noise = ndimage.gaussian_filter(rng.normal(0, 1, hu.shape), (0, 0.6, 0.6))
    seen = ndimage.gaussian_filter(hu + 45 * noise / noise.std(), (0, blur_px, blur_px))
    return np.maximum(np.rint(seen), -1024)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in-process: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            cli.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of series: `sharp` and `soft` of two bodies, and the `pair` of a third."""
    root = tmp_path_factory.mktemp("scans")
    for name, seed, blur_px in (
        ("sharp", 1, 0.0),
        ("soft", 2, 0.8),
        ("pair/sharp", 3, 0.0),
        ("pair/soft", 3, 0.8),
    ):
        stored = (phantom_hu(seed, blur_px) + 1024).astype("<u2")
        write_series(root / name, stored=stored, series=f"1.2.{seed}.{int(blur_px * 10)}")
    return root


@pytest.fixture(scope="session")
def model(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of `scans` that leaves images as they are; a test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("identity") / "model"
    cvsct.train("input", scans / "sharp", scans / "soft", folder)
    return folder


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A domain's statistics of few patches: most of a tiny training's time goes into them."""
    monkeypatch.setattr("cvsct.training.cyclegan.train.STATISTICS_PATCHES", 16)


@pytest.fixture
def without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings end without their ONNX export, which takes longer than they do."""
    monkeypatch.setattr("cvsct.training.trainer.with_graphs", lambda bundle: bundle)


@pytest.fixture(autouse=True)
def _vgg_by_default(vgg_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights for the domain loss where a test names none."""
    monkeypatch.setenv("CVSCT_VGG_WEIGHTS", str(vgg_weights))


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _not_the_users_cache(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that tests measure are kept apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache))
