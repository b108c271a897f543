"""Options that every command has, before or after its name, and options from a TOML file."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from cvsct.cli.console import configure
from cvsct.core.errors import UsageError
from cvsct.core.text import did_you_mean

PANEL = "Options of every command"


def complete_method(incomplete: str) -> list[str]:
    """Names of methods that begin so, for the shell's completion."""
    from cvsct.methods.registry import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Names of bundled models that begin so, for the shell's completion."""
    from cvsct.model.pretrained import bundled_names

    return [name for name in bundled_names() if name.startswith(incomplete)]


DRY_RUN_HELP = "Check the arguments and tell what would be done; write nothing."


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make a TOML file's values the defaults of options that are not given."""
    import tomllib

    if path is None or context.resilient_parsing:
        return path
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read as TOML ({error})") from None
    names: list[str] = []
    at: Any = context
    while at.parent is not None:
        names.insert(0, at.info_name or "")
        at = at.parent
    commands: dict[str, Any] = getattr(at.command, "commands", {})
    tables = {name: _by_parameter(path, commands, name, table) for name, table in values.items()}
    own: dict[str, Any] = tables
    for name in names:
        own = own.get(name, {})
    known = dict(context.default_map or {}) if names else {}
    context.default_map = {**known, **own}
    return path


def _by_parameter(path: Path, commands: dict[str, Any], name: str, table: Any) -> dict[str, Any]:
    """One command's table by the names of its parameters; of a group, tables by command.

    Raises:
        UsageError: for a command, or an option of it, that does not exist.
    """
    if name not in commands or not isinstance(table, dict):
        raise UsageError(
            f"--config {path}: {name!r} is no command; {did_you_mean(name, commands)}options stand "
            "in the table of their command, such as [harmonize]"
        )
    within = getattr(commands[name], "commands", None)
    if within is not None:
        return {key: _by_parameter(path, within, key, value) for key, value in table.items()}
    parameters = {
        option.removeprefix("--").replace("-", "_"): parameter.name
        for parameter in commands[name].params
        for option in [*parameter.opts, parameter.name]
    }
    found = {}
    for key, value in table.items():
        wanted = key.replace("-", "_")
        if wanted not in parameters:
            raise UsageError(
                f"--config {path}: {name} has no option {key!r}; "
                f"{did_you_mean(wanted, parameters)}`cvsct {name} --help` lists them"
            )
        found[parameters[wanted]] = value
    return found


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors alone.", rich_help_panel=PANEL)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Log what is done, with time and paths.", rich_help_panel=PANEL
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the result on stdout as JSON.", rich_help_panel=PANEL),
]
LogFile = Annotated[
    Path | None,
    typer.Option(help="Append all that is said and done to a file.", rich_help_panel=PANEL),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file with options, in a table for each command.",
        rich_help_panel=PANEL,
        is_eager=True,
        callback=_read_config,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help=DRY_RUN_HELP, rich_help_panel=PANEL)]

_COMMON = {"quiet": Quiet, "verbose": Verbose, "as_json": AsJson, "log_file": LogFile,
           "config": Config}  # fmt: skip


def with_common_options(function: Callable[..., None], writes: bool) -> Callable[..., None]:
    """A command that takes the options of every command beside its own.

    Args:
        writes: whether it writes anything, so that there is something to try by `--dry-run`.
    """
    hints = get_type_hints(function, include_extras=True)
    own = [
        each.replace(annotation=hints[name])
        for name, each in inspect.signature(function).parameters.items()
    ]
    common = {**_COMMON, **({"dry_run": DryRun} if writes else {})}
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if name in ("log_file", "config") else False,
            annotation=annotation,
        )
        for name, annotation in common.items()
    ]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        options = {name: given.pop(name) for name in common}
        options.pop("config")  # read before any other option, by its callback
        configure(**options)
        function(**given)

    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    del run.__wrapped__  # whose signature would count
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(lines.split()) for lines in paragraphs)
    return run
