"""Models that come with the package: model folders in `cvsct/bundled/`, each known by its name."""

from __future__ import annotations

from pathlib import Path

from cvsct.core.errors import ModelError, UsageError
from cvsct.core.text import did_you_mean
from cvsct.model.bundle import SUMS_FILE

ROOT = Path(__file__).resolve().parents[1] / "bundled"


def bundled_names() -> tuple[str, ...]:
    """Names of the models that come with this version, in alphabetical order."""
    if not ROOT.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in ROOT.iterdir() if (folder / SUMS_FILE).is_file()))


def bundled(name: str) -> Path:
    """Folder of a bundled model by its name.

    Raises:
        ModelError: if no bundled model has that name; the message lists those there are.
    """
    names = bundled_names()
    if name not in names:
        raise ModelError(
            f"no bundled model {name!r}; "
            + did_you_mean(name, names)
            + (f"choose one of {', '.join(names)}" if names else "none come with this version")
        )
    return ROOT / name


def model_folder(given: Path) -> Path:
    """Folder of the model that `--model` names: a folder, or else a bundled model.

    Raises:
        UsageError: if it is neither.
    """
    if given.exists():
        return given
    if given.name == str(given) and given.name in bundled_names():
        return bundled(given.name)
    names = bundled_names()
    raise UsageError(
        f"{given}: no such model folder; "
        + did_you_mean(str(given), names)
        + "name one that `cvsct train` has written"
        + (f", or a bundled model ({', '.join(names)})" if names else "")
    )
