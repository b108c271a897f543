"""The command line: parse, call, print. Everything heavy is imported by the command that needs it.

Exit codes: 0 success, 1 the run failed, 2 bad arguments, 3 some series failed or may be incomplete.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from cvsct import __version__
from cvsct.cli.benchmark import benchmark
from cvsct.cli.demo import demo
from cvsct.cli.doctor import doctor
from cvsct.cli.evaluate import evaluate
from cvsct.cli.harmonize import harmonize
from cvsct.cli.inspect import inspect
from cvsct.cli.methods import methods
from cvsct.cli.models import models
from cvsct.cli.simulate import simulate
from cvsct.cli.train import train
from cvsct.cli.words import EXIT_SOME_FAILED, begin, complain, may_be_incomplete, note, set_verbose
from cvsct.core.errors import CvsctError, explain

app = typer.Typer(
    help="Make CT scans of one scanner read like scans of another. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    *(demo, simulate, train, harmonize, evaluate, benchmark),
    *(methods, models, inspect, doctor),
):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error written for the user becomes one line and an exit code."""
    begin()
    try:
        app(args=arguments, prog_name="cvsct")
    except SystemExit as stop:
        if not stop.code and may_be_incomplete():
            note(f"warning: exit code {EXIT_SOME_FAILED}, for a scan may be incomplete")
            sys.exit(EXIT_SOME_FAILED)
        raise
    except CvsctError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(explain(error), CvsctError.exit_code)


def _fail(message: str, code: int) -> None:
    complain(message)
    sys.exit(code)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        print(f"cvsct {__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is done.")] = False,
) -> None:
    set_verbose(verbose)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(message)s"
    )
