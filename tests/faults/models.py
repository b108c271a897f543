"""Altered and hostile models, weights and checkpoints: refused, and nothing of them executed.

`python -m tests.faults.models`. A pickle in each place would leave a mark if it were executed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from cvsct.core.errors import CvsctError, ModelError, TrainingError
from cvsct.inference.cohort.job import SeriesHarmonizer
from cvsct.model.bundle import (
    CARD_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    GRAPH_FILES,
    SUMS_FILE,
    WEIGHTS_FILE,
    Bundle,
    Domain,
)
from tests.faults.finding import Finding, script
from tests.faults.graphs import graph_of

GOAL = "altered and hostile models and weights: never executed, refused"
DOMAIN = Domain(("Maker Scanner, kernel K1, 120 kVp",), (0.7, 0.7), (5.0, 5.0), 1, 4)
GRAPH = GRAPH_FILES["a2b"]
QUANTILES = 5


def write_model(folder: Path, method: str = "input") -> Path:
    """A sound model: `input`, or `histogram` with weights and a graph that it has no use for."""
    weights = {name: np.arange(QUANTILES, dtype=np.float64) for name in ("source_hu", "target_hu")}
    settings = {"region": "body", "quantiles": QUANTILES}
    if method == "input":
        Bundle("input", {}, {}, DOMAIN, DOMAIN).write(folder)
    else:
        graphs = {"a2b": graph_of()}
        Bundle(method, settings, weights, DOMAIN, DOMAIN, graphs=graphs).write(folder)
    return folder


class Executed:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self._mark),)


@dataclass(frozen=True)
class Place:
    """A model to be altered, what an executed pickle leaves, and a folder outside the model."""

    model: Path
    mark: Path
    outside: Path

    def replace(self, name: str, content: bytes) -> None:
        """Another content with sums that agree: whoever writes a model can do that too."""
        (self.model / name).unlink(missing_ok=True)
        (self.model / name).write_bytes(content)
        self.sums()

    def sums(self, *more: str) -> None:
        """Sums of what is there, and of more names."""
        names = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, GRAPH]
        lines = [f"{_sha256(self.model / n)}  {n}" for n in names if (self.model / n).is_file()]
        lines += [f"{'0' * 64}  {name}" for name in more]
        (self.model / SUMS_FILE).write_text("\n".join(lines) + "\n")

    def config(self, **changes: Any) -> None:
        """Other values in `model.json`."""
        about = json.loads((self.model / CONFIG_FILE).read_bytes())
        self.replace(CONFIG_FILE, json.dumps(about | changes).encode())

    def pickled(self) -> bytes:
        """A pickle that leaves the mark."""
        return pickle.dumps(Executed(self.mark))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _linked(place: Place, name: str) -> None:
    moved = place.outside / name
    (place.model / name).rename(moved)
    (place.model / name).symlink_to(moved)


def _fifo(place: Place) -> None:
    (place.model / CARD_FILE).unlink()
    os.mkfifo(place.model / CARD_FILE)


def _header(length: int) -> bytes:
    return length.to_bytes(8, "little") + b"{" + b" " * 100


def _zip(place: Place) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../outside/slipped", b"x")
        archive.writestr("archive/data.pkl", place.pickled())
    return stream.getvalue()


def _weights(**arrays: Any) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


_FINE = np.arange(QUANTILES, dtype=np.float64)

ALTERED: dict[str, tuple[Callable[[Place], object], str]] = {
    "a pickle named as weights": (
        lambda p: p.replace(WEIGHTS_FILE, p.pickled()),
        "not a readable model",
    ),
    "a zip with paths named as weights": (
        lambda p: p.replace(WEIGHTS_FILE, _zip(p)),
        "not a readable model",
    ),
    "a pickle named as model.json": (
        lambda p: p.replace(CONFIG_FILE, p.pickled()),
        "not a readable model",
    ),
    "a pickle named as a graph": (lambda p: p.replace(GRAPH, p.pickled()), "no ONNX graph"),
    "another hash": (
        lambda p: (p.model / CARD_FILE).write_text("other"),
        "does not match its hash",
    ),
    "no sums": (lambda p: (p.model / SUMS_FILE).unlink(), "not a finished model"),
    "sums that are no text": (
        lambda p: (p.model / SUMS_FILE).write_bytes(b"\xff\xfe\0"),
        "no list of hashes",
    ),
    "a file less": (lambda p: (p.model / WEIGHTS_FILE).unlink(), "is missing"),
    "sums that list another file": (lambda p: p.sums("code.py"), "lists 1 files that no model has"),
    "sums that lead outside": (
        lambda p: p.sums("../../etc/passwd"),
        "lists 1 files that no model has",
    ),
    "a link to weights": (lambda p: _linked(p, WEIGHTS_FILE), "a link, expected a file"),
    "a link to sums": (lambda p: _linked(p, SUMS_FILE), "a link, expected a file"),
    "a pipe": (_fifo, "no regular file"),
    "a header without end": (
        lambda p: p.replace(WEIGHTS_FILE, _header(2**62)),
        "not a readable model",
    ),
    "a header longer than the file": (
        lambda p: p.replace(WEIGHTS_FILE, _header(10**6)),
        "not a readable model",
    ),
    "a huge model.json": (
        lambda p: p.replace(CONFIG_FILE, b" " * (5 * 2**20) + b"{}"),
        "no model more than",
    ),
    "a model.json nested deep": (
        lambda p: p.replace(CONFIG_FILE, b"[" * 10**6),
        "not a readable model",
    ),
    "a model.json that is a list": (
        lambda p: p.replace(CONFIG_FILE, b"[1]"),
        "not a readable model",
    ),
    "settings that are a text": (lambda p: p.config(settings="x"), "settings is no dict"),
    "a method that is none": (lambda p: p.config(method="os.system"), "no method 'os.system'"),
    "a domain of other things": (lambda p: p.config(source={"scanners": 3}), "not a readable"),
    "weights that are not finite": (
        lambda p: p.replace(WEIGHTS_FILE, _weights(source_hu=_FINE * np.nan, target_hu=_FINE)),
        "hold values that are not finite",
    ),
    "weights of another shape": (
        lambda p: p.replace(WEIGHTS_FILE, _weights(source_hu=_FINE[:3], target_hu=_FINE)),
        "do not fit",
    ),
    "weights of two axes": (
        lambda p: p.replace(WEIGHTS_FILE, _weights(source_hu=_FINE[None], target_hu=_FINE[None])),
        "do not fit",
    ),
    "a weight less": (
        lambda p: p.replace(WEIGHTS_FILE, _weights(source_hu=_FINE)),
        "model without target_hu",
    ),
    "a graph with external data": (
        lambda p: p.replace(GRAPH, graph_of(external="../../etc/passwd")),
        "keeps values in another file",
    ),
    "a graph with external data in a branch": (
        lambda p: p.replace(GRAPH, graph_of(external="/etc/passwd", inside=True)),
        "keeps values in another file",
    ),
    "a graph with operators of another library": (
        lambda p: p.replace(GRAPH, graph_of(domain="com.hostile")),
        "operators of another library",
    ),
    "a graph cut short": (lambda p: p.replace(GRAPH, graph_of()[:-3]), "no ONNX graph"),
    "a graph that is none": (lambda p: p.replace(GRAPH, b"\x3a\xff\xff\xff"), "no ONNX graph"),
}
"""What is done to a model, and what its refusal says."""


def wrong_with(folder: Path, kind: str) -> str:
    """What is wrong with what an altered model leads to; empty where all is well."""
    place = Place(write_model(folder / "model", "histogram"), folder / "mark", folder / "outside")
    place.outside.mkdir()
    alter, expected = ALTERED[kind]
    alter(place)
    wrong = _refusal(lambda: _used(place.model), expected)
    return f"{kind}: {wrong}" if wrong else _executed(place, kind)


def checkpoint_wrong(folder: Path) -> str:
    """A training that is to go on from a pickle of another making."""
    from cvsct.training.checkpoint import BEST_FILE, Run, kept_models, kept_name
    from tests.training.test_resume import Still

    place = Place(folder, folder / "mark", folder)
    (folder / kept_name(1)).parent.mkdir(parents=True)
    for name in (CHECKPOINT_FILE, BEST_FILE, kept_name(1)):
        (folder / name).write_bytes(place.pickled())
    run = Run(folder, {}, np.random.default_rng(0))
    wrong = _refusal(lambda: run.resume(Still()), "no state of a training")
    wrong = wrong or _refusal(lambda: kept_models(folder), "no state of a training")
    return f"checkpoint: {wrong}" if wrong else _executed(place, "checkpoint")


def vgg_wrong(folder: Path) -> str:
    """Weights of the texture network that are pickles: torch's, numpy's, and as they are."""
    from cvsct.training.vgg_weights import load_vgg

    place = Place(folder, folder / "mark", folder)
    (folder / "plain.pth").write_bytes(place.pickled())
    (folder / "zip.pth").write_bytes(_zip(place))
    (folder / "plain.npz").write_bytes(place.pickled())
    held = np.empty(1, object)
    held[0] = Executed(place.mark)
    with zipfile.ZipFile(folder / "object.npz", "w") as archive:
        stream = io.BytesIO()
        np.lib.format.write_array(stream, held, allow_pickle=True)
        archive.writestr("block1_conv1/kernel.npy", stream.getvalue())
    for path in sorted(folder.glob("*.*")):
        wrong = _refusal(lambda path=path: load_vgg(path, ["relu1_1"]), "not VGG16 convolution")
        if wrong or _executed(place, path.name):
            return wrong or _executed(place, path.name)
    return ""


def strangers_wrong(folder: Path) -> str:
    """A sound model with other files beside its own: they are not opened."""
    place = Place(write_model(folder / "model"), folder / "mark", folder)
    for name in (CHECKPOINT_FILE, "weights.pkl", "b2a.onnx", "__init__.py", "model.py"):
        (place.model / name).write_bytes(place.pickled())
    _used(place.model)
    return _executed(place, "strangers")


def altered(folder: Path, count: int, seed: int) -> Finding:
    """Every kind; a seed changes nothing."""
    found = [wrong_with(folder / str(i), kind) for i, kind in enumerate(list(ALTERED)[:count])]
    others = (checkpoint_wrong, vgg_wrong, strangers_wrong)
    for each in others:
        (folder / each.__name__).mkdir()
        found.append(each(folder / each.__name__))
    return Finding(GOAL, len(found), tuple(filter(None, found)))


def _used(model: Path) -> None:
    """As `cvsct harmonize` does, as far as a model goes."""
    work = SeriesHarmonizer(model, Bundle.read(model).sha256)
    work.load(work.bundle())


def _refusal(work: Callable[[], object], expected: str) -> str:
    try:
        work()
    except (ModelError, TrainingError, CvsctError) as error:
        return "" if expected in str(error) else f"refused as {str(error)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "was taken"


def _executed(place: Place, kind: str) -> str:
    slipped = (place.outside / "slipped").exists() or (place.model.parent / "slipped").exists()
    return f"{kind}: was executed" if place.mark.exists() or slipped else ""


if __name__ == "__main__":
    script(altered, len(ALTERED))
