"""Options of every command as a page: docs/reference/command-line-options.md.

    python scripts/cli_reference.py            # writes the page
    python scripts/cli_reference.py --check    # exit code 1 where the page is not up to date

The page follows from the commands' signatures: help, arguments, options, defaults and bounds.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer

from cvsct.cli import app
from cvsct.cli.command import PANEL

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "command-line-options.md"
ORDER = (
    "inspect", "train", "harmonize", "evaluate", "profile", "features", "groups", "study plan",
    "study run", "study report", "simulate", "benchmark", "methods", "models", "doctor", "demo",
)  # fmt: skip
HEAD = """# Options of each command

<!-- Written by `python scripts/cli_reference.py`; a test compares it with the commands. -->

Every command with its arguments and options, as `cvsct COMMAND --help` lists them.
[Command line](command-line.md) says how all commands behave: output, exit codes, options from a
file.

## Options of every command

They stand before or after the command's name.
"""
FOOT = """`--dry-run` is an option of the commands that write. `cvsct --version` prints the version;
`cvsct --install-completion` sets up completion.
"""
NAMES = {int: "integer", float: "number", str: "text", Path: "path"}
Command = Callable[..., None]


class Option:
    """One argument or option of a command: names, value, default and meaning."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        kind, self.info = get_args(parameter.annotation)[:2]
        self.is_argument = isinstance(self.info, typer.models.ArgumentInfo)
        self.required = parameter.default is inspect.Parameter.empty
        self.default = "" if self.required else parameter.default
        self.kind, self.repeats = _plain(kind)
        named = (self.info.default, *(self.info.param_decls or ()))  # names come first
        given = [name for name in named if isinstance(name, str) and name.startswith("-")]
        if self.is_argument:
            self.names = [str(self.info.metavar or parameter.name.upper()).strip("{}")]
        else:
            dashed = "--" + parameter.name.replace("_", "-")
            off = "--no-" + parameter.name.replace("_", "-")
            both = [dashed, off] if self.kind is bool and not given else [dashed]
            self.names = [part for name in given for part in name.split("/")] or both

    @property
    def is_common(self) -> bool:
        """Whether every command has it."""
        return bool(self.info.rich_help_panel == PANEL)

    @property
    def value(self) -> str:
        """What it takes: choices, a kind of value with its bounds; empty for a switch."""
        if self.kind is bool or self.is_argument:
            return ""
        if self.info.metavar:
            shown = str(self.info.metavar)
        elif get_origin(self.kind) is Literal:
            shown = ", ".join(str(choice) for choice in get_args(self.kind))
        else:
            shown = NAMES[self.kind]
        low, high = self.info.min, self.info.max
        if low is not None:
            shown += f", {low:g} to {high:g}" if high is not None else f", at least {low:g}"
        return f"{shown}; again for more" if self.repeats else shown

    @property
    def told_default(self) -> str:
        """Its default in words; empty where none is worth telling."""
        if self.required:
            return "required"
        if self.kind is bool and self.names[-1].startswith("--no-"):
            return self.names[0 if self.default else -1].strip("-")
        return "" if self.default is None or self.default is False else str(self.default)

    def row(self, with_default: bool = True) -> str:
        """A row of the table."""
        names = ", ".join(f"`{name}`" for name in self.names)
        cells = [names, self.value, *([self.told_default] if with_default else [])]
        cells.append(self.info.help or "")
        return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"


def _plain(kind: Any) -> tuple[Any, bool]:
    """A kind of value without None and list, and whether it was a list."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    return (get_args(kind)[0], True) if get_origin(kind) is list else (kind, False)


def commands(group: typer.Typer = app, before: str = "") -> Iterator[tuple[str, Command]]:
    """Every command with its words, those of sub-commands last."""
    for each in group.registered_commands:
        assert each.callback is not None
        yield f"{before}{each.name or each.callback.__name__}", each.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{before}{inner.name} ")


def options(command: Command) -> list[Option]:
    """Arguments and options of a command, without hidden ones."""
    parameters = inspect.signature(command).parameters.values()
    return [found for found in map(Option, parameters) if not found.info.hidden]


def table(rows: list[Option], with_default: bool = True) -> list[str]:
    """Options as a table."""
    head = ["option", "value", *(["default"] if with_default else []), "meaning"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(option.row(with_default) for option in rows)]


def section(name: str, command: Command) -> list[str]:
    """One command: its help, usage, arguments and own options."""
    own = [option for option in options(command) if not option.is_common]
    words = [f"cvsct {name}"]
    for option in own:
        if option.is_argument:
            words.append(option.names[0] if option.required else f"[{option.names[0]}]")
        elif option.required:
            words.append(f"{option.names[0]} {option.names[0].strip('-').upper()}")
    lines = [f"## cvsct {name}", "", inspect.cleandoc(command.__doc__ or ""), ""]
    lines += [f"Usage: `{' '.join(words)} [OPTIONS]`", ""]
    return [*lines, *table(own), ""] if own else lines


def page() -> str:
    """The whole page."""
    found = dict(commands())
    ordered = {name: found.pop(name) for name in ORDER} | found
    common = [option for option in options(ordered["harmonize"]) if option.is_common]
    lines = [HEAD, *table(common, with_default=False), "", FOOT]
    for name, command in ordered.items():
        lines += section(name, command)
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write the page, or compare it with what stands there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if stale")
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != page():
            print(f"{PAGE.name} is not up to date: run python scripts/cli_reference.py")
            return 1
        return 0
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
