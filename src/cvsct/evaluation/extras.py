"""Libraries that only evaluation needs, imported when they are needed."""

from __future__ import annotations

from typing import Any

from cvsct.core.errors import import_extra


def load_extra(module: str) -> Any:
    """Import a library that only evaluation needs, when it is needed.

    Raises:
        MissingExtraError: if it is not installed.
    """
    return import_extra(module, "evaluation", "evaluate")
