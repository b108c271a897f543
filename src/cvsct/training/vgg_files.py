"""Files with the weights of an ImageNet VGG network: where they are looked for, and who made them.

Nothing is downloaded unless the user has asked for it. `vgg_weights.py` reads the files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from cvsct.core import platform
from cvsct.core.download import DownloadError, DownloadOptions, PublishedFile, download
from cvsct.core.errors import TrainingError
from cvsct.core.files import file_sha256
from cvsct.networks.vgg import Network
from cvsct.training.vgg_h5 import HDF5_SUFFIXES, require_h5py

WEIGHTS_VARIABLE = "CVSCT_VGG_WEIGHTS"

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_OXFORD = (
    "K. Simonyan and A. Zisserman, Visual Geometry Group, University of Oxford "
    "(https://www.robots.ox.ac.uk/~vgg/research/very_deep/), converted by Keras Applications"
)
_CC_BY = "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)"

PUBLISHED: dict[Network, PublishedFile] = {
    "vgg16": PublishedFile(
        f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        58_889_256,
        {
            "md5": "6d6bbae143d832006294945121d1f1fc",
            "sha256": "bfe5187d0a272bed55ba430631598124cff8e880b98d38c9e56c8d66032abdc1",
        },
        _OXFORD,
        _CC_BY,
    ),
    "vgg19": PublishedFile(
        f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        80_134_624,
        {"md5": "253f8cb515780f3b799900260a226db6"},
        _OXFORD,
        _CC_BY,
    ),
}
"""Files of the convolutions alone, which can be downloaded.

Addresses and md5 are those in the source of Keras (`keras/applications/vgg16.py`, `vgg19.py`); no
sha256 of VGG19's file is known to be published. License: https://keras.io/api/applications/vgg/.
"""

TORCHVISION: dict[Network, str] = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
"""torchvision's files of the whole networks, found in torch's cache; the name ends in the first
digits of the file's sha256."""

NEEDED_BY = {"domain": "the domain loss", "vgg": "the frozen encoder"}
"""Part that needs the weights, by the setting that names their file."""


@dataclass(frozen=True)
class WantedWeights:
    """Weights that a training needs, and where its settings let them come from.

    Args:
        path: file that the user has named; empty for none.
        download: whether the settings allow a download.
        setting: whose parts `weights` and `download` are: `domain` or `vgg`.
    """

    network: Network = "vgg16"
    path: str = ""
    download: bool = False
    setting: str = "domain"

    @property
    def description(self) -> str:
        """What needs the weights, and of which network, as the beginning of a sentence."""
        return f"{NEEDED_BY[self.setting]} needs ImageNet {self.network.upper()} weights"


def locate_weights(wanted: WantedWeights) -> Path | None:
    """Path of the file: the named one, else of CVSCT_VGG_WEIGHTS, of torch's cache, of our cache.

    Returns:
        None if there is none in any of these places.

    Raises:
        TrainingError: if the file that the setting or the variable names does not exist.
    """
    named = wanted.path or os.environ.get(WEIGHTS_VARIABLE, "")
    if named:
        if not Path(named).is_file():
            raise TrainingError(
                f"{named}: no such file of VGG weights; see docs/reference/training.md"
            )
        return Path(named)
    places = (_torch_cache(wanted.network), _own_cache(wanted.network))
    return next((path for path in places if path.is_file()), None)


def find_weights(wanted: WantedWeights, options: DownloadOptions | None = None) -> Path:
    """Path of the weights file, which is downloaded where a setting or the user allows it.

    Args:
        options: whom to ask; without it only `wanted.download` allows a download.

    Returns:
        The file; after a dry run it may not exist.

    Raises:
        TrainingError: if there is none, the user declines, or it cannot be downloaded.
        MissingExtraError: if it is of HDF5 and h5py is not installed.
    """
    options = options or DownloadOptions()
    located = locate_weights(wanted)
    published, path = PUBLISHED[wanted.network], located or _own_cache(wanted.network)
    if path.suffix in HDF5_SUFFIXES:
        require_h5py()  # rather than when the scans have been read
    if located is not None:
        return located
    if not (wanted.download or (options.confirm and options.confirm(_question(wanted)))):
        raise TrainingError(_missing(wanted))
    if options.dry_run:
        options.note(f"{published.url} ({published.megabytes}) would be downloaded to {path}")
        return path
    try:
        download(published, path, options.progress)
    except DownloadError as error:
        raise TrainingError(
            f"{error}; {wanted.description}: on a machine that has no access, download this file "
            f"on another one and put it at {path}, or give it with --set "
            f"{wanted.setting}.weights=FILE or {WEIGHTS_VARIABLE}"
        ) from error
    options.note(f"downloaded {path.name}, {published.source}, {published.license}, to {path}")
    return path


def describe_weights(path: Path, network: Network, use: str) -> dict[str, str]:
    """Attribution of a weights file, for the model that was trained with it; plain JSON values.

    The file is recognized by its hash, not by its name or place.

    Args:
        use: what the model has of the weights.
    """
    sha256 = file_sha256(path)
    published = PUBLISHED[network]
    digits = Path(TORCHVISION[network]).stem.rpartition("-")[2]
    if published.is_same(path):
        source, file_license, url = published.source, published.license, published.url
    elif sha256.startswith(digits):
        source, file_license = "torchvision", "BSD 3-Clause, as torchvision"
        url = f"https://download.pytorch.org/models/{TORCHVISION[network]}"
    else:
        source, file_license, url = "a file of the user's, not recognized", "unknown", "unknown"
    return {
        "what": f"ImageNet {network.upper()} weights",
        "use": use,
        "source": source,
        "license": file_license,
        "file": url,
        "sha256": sha256,
    }


def _torch_cache(network: Network) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION[network]


def _own_cache(network: Network) -> Path:
    return platform.cache_folder() / "weights" / PUBLISHED[network].name


def _question(wanted: WantedWeights) -> str:
    published = PUBLISHED[wanted.network]
    return (
        f"{wanted.description}, which are not on this machine. Download {published.megabytes} from "
        f"{published.url} (source: {published.source}; license: {published.license}) to "
        f"{_own_cache(wanted.network)}?"
    )


def _missing(wanted: WantedWeights) -> str:
    published, path = PUBLISHED[wanted.network], _own_cache(wanted.network)
    return (
        f"{wanted.description}: give --yes (in Python the setting {wanted.setting}.download=True) "
        f"to download {published.megabytes} from {published.url}, or put that file at {path}, or "
        f"name a file (.npz, .h5 or .pth) with --set {wanted.setting}.weights=FILE or "
        f"{WEIGHTS_VARIABLE}, or put torchvision's {TORCHVISION[wanted.network]} into "
        f"{_torch_cache(wanted.network).parent}; of the GANs `cvsct-2`, `cyclegan` and `cgan` "
        "train without them"
    )
