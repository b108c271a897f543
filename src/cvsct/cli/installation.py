"""What `cvsct doctor` says of the installation: Python, libraries, extras, weights, programs."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence

from cvsct import __version__
from cvsct.cli.console import Finding
from cvsct.core.errors import CvsctError

OLDEST_PYTHON = (3, 11)
EXTRAS = ("simulate", "train", "evaluate", "cohort", "parquet")
CORE_MODULES = (
    *("filelock", "numpy", "scipy.ndimage", "pydicom", "jpeg_ls", "openjpeg", "gdcm", "openvino"),
    *("safetensors", "nibabel", "jaxtyping", "typer", "rich", "pydantic"),
)
"""What the core's libraries are imported as: one that is installed may still fail to load."""

COMPILED = {"evaluate": "pyradiomics-bhklab"}
"""Of an extra, what comes as source where there is no wheel: on Windows and macOS."""

PROGRAMS = {"dciodvfy": "validates DICOM in tests", "dcentvfy": "the same, for whole series"}


def findings() -> Iterator[Finding]:
    """Everything about the installation."""
    version = ".".join(map(str, OLDEST_PYTHON))
    old = sys.version_info < OLDEST_PYTHON
    yield Finding("cvsct", __version__)
    yield Finding(
        "Python",
        f"{platform.python_version()}{f', needs {version} or newer' if old else ''}",
        wrong=old,
    )
    yield core(CORE_MODULES)
    yield from (extra(name) for name in EXTRAS)
    yield vgg_weights()
    for program, purpose in PROGRAMS.items():
        path = shutil.which(program)
        yield Finding(program, path or f"not installed (optional: {purpose}); Debian: dicom3tools")


def core(modules: Sequence[str]) -> Finding:
    """Whether the libraries that every command stands on can be loaded."""
    failed = []
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken binary raises anything; each is an answer here
            failed.append(f"{module}: {type(error).__name__}: {error}")
    if failed:
        return Finding("core", f"broken, install cvsct again ({'; '.join(failed)})", wrong=True)
    return Finding("core", _listed(required("")) or "all libraries load")


def extra(name: str) -> Finding:
    """Versions of what an extra installs, or how to get what is missing."""
    wanted = required(name)
    missing = [each for each in wanted if _version(each) is None]
    if not wanted or missing:
        lacks = f"lacks {', '.join(missing)}; " if missing else "unknown; "
        return Finding(f"[{name}]", f"{lacks}pip install 'cvsct[{name}]'{_compiler(name)}")
    return Finding(f"[{name}]", _listed(wanted))


def _compiler(name: str) -> str:
    """What an extra needs before pip can install it on this system."""
    if name not in COMPILED or sys.platform == "linux":
        return ""
    return f", which compiles {COMPILED[name]}: needs a C compiler, or take conda or WSL"


def required(name: str) -> list[str]:
    """Distributions that an extra asks for, or the core where the name is empty."""
    try:
        lines = importlib.metadata.requires("cvsct") or []
    except importlib.metadata.PackageNotFoundError:
        return []  # run from a source folder
    found = []
    for line in lines:
        asked = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if (asked.group(1) if asked else "") == name:
            found.append(re.split(r"[^\w.-]", line, maxsplit=1)[0])
    return found


def vgg_weights() -> Finding:
    """Where the texture loss finds ImageNet's weights, or how to get them."""
    try:
        from cvsct.training.vgg_files import (
            PUBLISHED,
            WEIGHTS_VARIABLE,
            WantedWeights,
            locate_weights,
        )

        path = locate_weights(WantedWeights())
    except ImportError:
        return Finding("VGG weights", "not looked for without PyTorch")
    except CvsctError as error:
        how = str(error)
    else:
        if path is not None:
            return Finding("VGG weights", str(path))
        published = PUBLISHED["vgg16"]
        how = (
            f"`cvsct train` offers to download {published.megabytes} from {published.url}; a file "
            f"that is here already is named by {WEIGHTS_VARIABLE} or --set domain.weights=FILE; "
            "see docs/reference/training.md"
        )
    only = "needed to train cvsct, cvsct-1 and radiomicgan alone"
    return Finding("VGG weights", f"not found, {only} ({how})")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_version(name) or 'not installed'}" for name in names)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
