"""Libraries that only some files need."""

from __future__ import annotations

import importlib
from typing import Any

from cvsct.errors import MissingExtraError


def evaluation_library(module: str) -> Any:
    """Import what the `evaluate` extra installs.

    Raises:
        MissingExtraError: if it is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"reading this mask needs {module.partition('.')[0]} ({error}); "
            "install it with: pip install 'cvsct[evaluate]'"
        ) from error
