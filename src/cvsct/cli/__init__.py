"""The command line: parse, call the API, print. Heavy imports stand in the command that needs them.

Exit codes: 0 success, 1 the run failed, 2 bad arguments (a path that does not exist is one), 3 some
series failed or may be incomplete, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from cvsct import __version__
from cvsct.cli.benchmark import benchmark
from cvsct.cli.command import AsJson, Config, LogFile, Quiet, Verbose, with_common_options
from cvsct.cli.console import (
    EXIT_FAILED,
    EXIT_SOME_FAILED,
    EXIT_STOPPED,
    EXIT_USAGE,
    configure,
    may_be_incomplete,
    report_error,
    report_line,
    start,
)
from cvsct.cli.demo import demo
from cvsct.cli.doctor import doctor
from cvsct.cli.evaluate import evaluate
from cvsct.cli.features import features
from cvsct.cli.groups import groups
from cvsct.cli.harmonize import harmonize
from cvsct.cli.inspect import inspect
from cvsct.cli.methods import methods
from cvsct.cli.models import models
from cvsct.cli.profile import profile
from cvsct.cli.progress import stop_progress
from cvsct.cli.simulate import simulate
from cvsct.cli.study import plan, report, run
from cvsct.cli.train import train
from cvsct.core.errors import CvsctError, explain

app = typer.Typer(
    help="Make CT scans of one scanner look like scans of another. For research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
STOPPED = "stopped; what was whole is kept"
"""Line after Ctrl-C of a command that knows nothing better to say."""

WRITING = (demo, simulate, profile, train, harmonize, evaluate, features, groups, benchmark)
READING = (methods, models, inspect, doctor)
for command in (*WRITING, *READING):
    app.command()(with_common_options(command, writes=command in WRITING))
study = typer.Typer(
    help="Many scanners to one reference: plan, run and report a study.", no_args_is_help=True
)
for step in (plan, run, report):
    study.command()(with_common_options(step, writes=True))
app.add_typer(study, name="study")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error written for the user becomes one line and an exit code."""
    start()
    is_program = arguments is None
    try:
        code = app(args=arguments, prog_name="cvsct", standalone_mode=False)
        if code == EXIT_STOPPED:  # what typer makes of Ctrl-C, without a word
            _fail(STOPPED, EXIT_STOPPED, is_program)
        sys.exit(code if isinstance(code, int) else 0)
    except SystemExit as stop:
        if not stop.code and may_be_incomplete():
            report_line(f"warning: exit code {EXIT_SOME_FAILED}, for a scan may be incomplete")
            sys.exit(EXIT_SOME_FAILED)
        raise
    except CvsctError as error:
        _fail(str(error), error.exit_code, is_program)
    except OSError as error:
        _fail(explain(error), EXIT_FAILED)
    except (KeyboardInterrupt, typer.Abort):
        _fail(STOPPED, EXIT_STOPPED, is_program)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail_parsing(error)
    finally:
        stop_progress()


def _fail_parsing(error: Any) -> NoReturn:
    """End with what the parser says of the words that were given, as one line like any error."""
    message = error.format_message()
    if "\n" in message or not message.strip():  # help, where no words were given
        if message.strip():  # else it is printed already
            print(message, file=sys.stderr)
        sys.exit(EXIT_USAGE)
    message = message.replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "cvsct"
    end = "" if message.endswith("?") else ";"
    _fail(f"{message}{end} `{path} --help` lists what it takes", EXIT_USAGE)


def _fail(message: str, code: int, is_program: bool = False) -> NoReturn:
    """End with one line and an exit code.

    Args:
        is_program: whether this process is the program and nothing else, so that after Ctrl-C it
            ends without waiting for its threads.
    """
    logging.getLogger("cvsct.cli").info("exit code %d", code, exc_info=True)
    report_error(message)
    if code == EXIT_STOPPED and is_program:
        _end_with_threads(code)
    sys.exit(code)


def _end_with_threads(code: int) -> None:
    """End the process at once if Python would first wait for threads that still work."""
    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate()[1:]):
        stop_progress()
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        print(f"cvsct {__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    version: Annotated[
        bool | None,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
    log_file: LogFile = None,
    config: Config = None,
) -> None:
    configure(quiet=quiet, verbose=verbose, as_json=as_json, log_file=log_file)
