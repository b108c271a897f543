"""Import of the libraries that only evaluation needs (extra `evaluate`), on first use."""

from __future__ import annotations

from typing import Any

from cvsct.core.errors import import_extra


def load_extra(module: str) -> Any:
    """Import a module of the extra `evaluate`.

    Raises:
        MissingExtraError: if it is not installed.
    """
    return import_extra(module, "evaluation", "evaluate")
