"""Commands on the pages: each is run here or marked, and each parses against the real commands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from cvsct.cli import app
from tests.support.commands import Run
from tests.support.pages import MANUAL, PYTHON, ROOT, SHELL, Block, blocks_of, named, words

BLOCKS = [block for page in MANUAL for block in blocks_of(page)]
CODE = [block for block in BLOCKS if block.is_code]
COMMANDS = sorted({command for block in BLOCKS for command in block.commands})
INLINE = re.compile(r"`(cvsct (?!guard:|resample`)[a-z][^`]*)`")
"""Commands in the text; not what the program writes into DICOM."""
RUN_IN = sorted({(block.page, block.sandbox) for block in CODE if block.sandbox})
PROGRAMS = re.compile(r"^(?:cvsct|python|pip|make|bash|torchrun|dask|\.venv/\S+) ", re.MULTILINE)


def at(block: Block) -> str:
    return f"{block.page}:{block.line}"


def test_every_block_of_code_is_run_or_says_why_not() -> None:
    assert [at(block) for block in CODE if not block.mark] == []
    plain = [block for block in BLOCKS if not block.language and PROGRAMS.search(block.text)]
    assert [at(block) for block in plain] == [], "a block of commands names its language: bash"


@pytest.mark.parametrize("block", CODE, ids=at)
def test_a_mark_says_what_it_must(block: Block) -> None:
    if block.mark.startswith("run by "):
        files = block.mark.removeprefix("run by ").split()
        assert [file for file in files if not (ROOT / file).exists()] == []
    elif block.mark.startswith("not run"):
        assert re.match(r"not run: \S+ \S+", block.mark)
    else:
        assert block.sandbox in SANDBOXES


def command_of(group: Any, given: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words after its name."""
    while given and given[0] in getattr(group, "commands", {}):
        group, given = group.commands[given[0]], given[1:]
    return group, given


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_blocks_parse(command: str) -> None:
    found, rest = command_of(typer.main.get_command(app), words(command))
    assert not hasattr(found, "commands"), f"no such command: {command}"
    found.make_context("cvsct", rest)


@pytest.mark.parametrize("page", MANUAL, ids=named)
def test_commands_in_the_text_exist_with_their_options(page: Path) -> None:
    group = typer.main.get_command(app)
    wrong = []
    for command in INLINE.findall(page.read_text(encoding="utf-8")):
        found, rest = command_of(group, command.split()[1:])
        known = {name for p in found.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
        options = {word.split("=")[0] for word in rest if word.startswith("--")}
        placeholder = command.split()[1] in ("COMMAND", "...")
        if (hasattr(found, "commands") and rest[:1] and not placeholder) or options - known:
            wrong.append(command)
    assert wrong == []


def two_scanners(root: Path, scans: Path, model: Path) -> None:
    """Scans where `cvsct simulate` would have written those of the first page."""
    source, target = "ge-revolution-evo", "siemens-somatom-force"
    shutil.copytree(scans / "sharp", root / "scans/train" / source)
    shutil.copytree(scans / "soft", root / "scans/train" / target)
    shutil.copytree(scans / "pair/sharp", root / "scans/test" / source)
    shutil.copytree(scans / "pair/soft", root / "scans/test" / target)
    shutil.copytree(scans / "retest", root / "scans/repeat" / target)


def hospitals(root: Path, scans: Path, model: Path) -> None:
    """Two hospitals in one tree."""
    shutil.copytree(scans / "sharp", root / "scans/north/P1")
    shutil.copytree(scans / "soft", root / "scans/south/P2")


def sides(root: Path, scans: Path, model: Path) -> None:
    """A folder of scans for each side, and a series of the first."""
    for name, folder in (("scans_of_A", "sharp"), ("scans_of_B", "soft"), ("series_of_A", "sharp")):
        shutil.copytree(scans / folder, root / name)


def modeled(root: Path, scans: Path, model: Path) -> None:
    """A series and a model for it."""
    shutil.copytree(scans / "sharp", root / "scans")
    shutil.copytree(model, root / "model")


SANDBOXES = {"demo": two_scanners, "hospitals": hospitals, "training": sides, "model": modeled}


@pytest.mark.parametrize(("page", "sandbox"), RUN_IN)
def test_blocks_of_a_page_run_in_their_order(
    page: str, sandbox: str, few_slices: Path, model: Path, run: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    SANDBOXES[sandbox](tmp_path, few_slices, model)
    monkeypatch.chdir(tmp_path)
    for block in CODE:
        if (block.page, block.sandbox) != (page, sandbox):
            continue
        if block.language in PYTHON:
            exec(compile(block.text, at(block), "exec"), {})
            continue
        assert block.language in SHELL
        for command in block.commands:
            code, said, err = run(*words(command))
            assert code == 0, f"{at(block)}: {command}: {said}{err}"


def test_a_wrong_option_is_found() -> None:
    found, rest = command_of(typer.main.get_command(app), words("cvsct harmonize x --modle m"))
    with pytest.raises(Exception, match="modle"):
        found.make_context("cvsct", rest)
