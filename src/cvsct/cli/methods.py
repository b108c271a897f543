"""`cvsct methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvsct.cli.command import complete_method
from cvsct.cli.console import report_result
from cvsct.core.text import columns

if TYPE_CHECKING:
    from cvsct.methods.registry import Method
    from cvsct.methods.settings import SettingInfo

KEYS = ("name", "kind", "reversible", "recommended", "summary")


def methods(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="One of them: its settings with defaults.",
            autocompletion=complete_method,
        ),
    ] = "",
) -> None:
    """List the harmonization methods, or show the settings of one."""
    from cvsct.methods.registry import METHODS, find_method

    if name:
        row = find_method(name)
        settings = row.describe_settings()
        about = _plain(row) | {"settings": [setting.to_json() for setting in settings]}
        report_result(_page(row, settings), about)
        return
    width = max(map(len, METHODS))
    lines = [
        f"{row.name:<{width}} {row.kind:<10} {row.summary}"
        + ("  (recommended)" if row.recommended else "")
        for row in METHODS.values()
    ]
    report_result("\n".join(lines), [_plain(row) for row in METHODS.values()])


def _plain(row: Method) -> dict[str, Any]:
    return {key: getattr(row, key) for key in KEYS}


def _page(row: Method, settings: tuple[SettingInfo, ...]) -> str:
    """What a method is, and its settings one below the other."""
    direction = "one training serves both directions" if row.reversible else "maps from A to B only"
    lines = [f"{row.name}: {row.summary} ({row.kind}; {direction})"]
    if not settings:
        return f"{lines[0]}\nno settings"
    presets = list(settings[0].presets)
    head = ("--set", "default", *presets, "type", "what it is")
    rows = [
        (
            setting.key,
            _short(setting.default),
            *(_short(setting.presets[preset]) for preset in presets),
            f"{setting.type} {setting.bounds}".strip(),
            setting.description,
        )
        for setting in settings
    ]
    return "\n".join([*lines, "", columns([head, *rows])])


def _short(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
