"""Disks that fill at twenty places of a command's way: `python -m tests.faults.disk_full`.

OUT lies on a small file system in memory that only this process sees (`unshare`), each time of
another size below what an undisturbed run writes. The error must be one clear line, the exit code
not 0, no file in OUT cut short or half there, the source untouched.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from cvsct.simulation import run as simulation_run
from tests.faults.commands import call, files_under
from tests.faults.finding import ROOT, Finding, script
from tests.faults.models import write_model
from tests.support.dicom_files import write_series
from tests.support.fake_scanner import FAKE
from tests.support.faulty_cohort import write_tree

GOAL = "full disks: one clear line, exit code not 0, no partial file in OUT, source untouched"
CLEAR = ("No space left on device", "database or disk is full", "free some space", "space")
MODULE = "tests.faults.disk_full"
COMMANDS = ("harmonize", "cohort", "train", "checkpoints", "evaluate", "simulate")
_PAGE = 4096
_GROWS = {"simulate", "cohort", "checkpoints"}
"""Where OUT keeps what was done, whole files all of them, and the same command goes on."""
_LOGS = (".jsonl", ".sqlite", ".sqlite-journal", ".lock")
"""Files that grow line by line or page by page, and are sound at any length."""


def disk_full(folder: Path, count: int, seed: int, commands: Sequence[str] = COMMANDS) -> Finding:
    """Each command so many times; without the right to mount, nothing is tried."""
    able = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if able.returncode:
        return Finding(GOAL, 0, skipped="no file system may be mounted here (unshare, tmpfs)")
    command = ["unshare", "--mount", "--map-root-user", sys.executable, "-m", MODULE]
    done = subprocess.run(
        [*command, "--inside", str(folder), "--count", str(count), *commands],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        return Finding(GOAL, 0, ("it could not be tried, see what was printed",))
    found = json.loads(done.stdout.splitlines()[-1])
    return Finding(GOAL, found["count"], tuple(found["failures"]), found["figures"])


def inside(folder: Path, count: int, commands: Sequence[str]) -> Finding:
    """These commands, where file systems may be mounted."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    sources = folder / "sources"
    words = _words(sources)
    before = files_under(sources)
    failures: list[str] = []
    figures: dict[str, Any] = {}
    for name in commands:
        whole = _undisturbed(folder / "whole" / name, words[name])
        used = sum(-(-len(data) // _PAGE) * _PAGE for data in whole.values())
        ends = [used * (2 * i + 1) // (2 * count) // _PAGE * _PAGE for i in range(count)]
        sizes = sorted({max(_PAGE, end) for end in ends})  # the system rounds up to a page
        figures[name] = {"offsets": len(sizes), "bytes": used}
        for size in sizes:
            wrong = _tried(folder / "disk", name, size, words[name], whole)
            print(name, size, file=sys.stderr, flush=True)
            failures += [f"{name} at {size} of {used} bytes: {each}" for each in wrong]
    if files_under(sources) != before:
        failures.append("the source has changed")
    tried = sum(each["offsets"] for each in figures.values())
    return Finding(GOAL, tried, tuple(failures), figures)


def _words(sources: Path) -> dict[str, tuple[object, ...]]:
    from tests.conftest import phantom_hu

    for name, seed, blur_px in (("a", 1, 0.0), ("b", 2, 0.8)):
        stored = (phantom_hu(seed, blur_px, slices=3) + 1024).astype("<u2")
        write_series(sources / name, stored=stored, series=f"1.2.{seed}")
    model = write_model(sources / "model")
    tree = write_tree(sources / "tree", 4)
    sides = ("--source", sources / "a", "--target", sources / "b")
    tiny = (
        *("generator.width=8", "generator.reduction=4", "generator.hold_low_px=2"),
        *("patch_px=24", "batch=2", "precision=fp32", "validation_patches=8"),
        *("discriminator.widths=[8,8]", "discriminator.strides=[2,1]", "weight_domain=0"),
        *("schedule.save_steps=1", "schedule.save_seconds=0"),
    )
    return {
        "harmonize": ("harmonize", sources / "a", "--model", model),
        "cohort": ("harmonize", tree, "--model", model),
        "train": ("train", "histogram", *sides, "--set", "quantiles=20000"),
        "checkpoints": (
            *("train", "cyclegan", *sides, "--max-steps", 3),
            *(word for pair in tiny for word in ("--set", pair)),
        ),
        "evaluate": (
            *("evaluate", "--harmonized", sources / "a", "--target", sources / "a"),
            *("--rois", 3, "--workers", 1),
        ),
        "simulate": ("simulate", "--scale", "tiny", "--workers", 1),
    }


def _undisturbed(place: Path, words: tuple[object, ...]) -> dict[Path, bytes]:
    place.mkdir(parents=True)
    code, _, err = _called(words, place / "out")
    assert code == 0, err
    return {path.relative_to(place): data for path, data in files_under(place).items()}


def _called(words: tuple[object, ...], out: Path) -> tuple[int, str, str]:
    faked = functools.partial(simulation_run.run_simulation, builders=FAKE)
    with (
        mock.patch("cvsct.api.simulate.run_simulation", faked),
        mock.patch.object(
            simulation_run,
            "SPARE_BYTES",
            -(2**40),  # else it refuses at once a disk of this size
        ),
    ):
        return call(*words, "--out", out)


def _tried(
    place: Path, name: str, size: int, words: tuple[object, ...], whole: dict[Path, bytes]
) -> Iterator[str]:
    with _disk(place, size):
        code, _, err = _called(words, place / "out")
        lines = [line for line in err.splitlines() if "error" in line]
        if code == 0:
            yield "exit code 0"
            return
        if not (len(lines) == 1 and lines[0].startswith("cvsct: error: ")):
            yield f"not one clear line: {err[-300:]!r}"
        elif not any(words in lines[0] for words in CLEAR):
            yield f"not clear: {lines[0]}"
        held = {path.relative_to(place): data for path, data in files_under(place).items()}
        if name not in _GROWS:
            if held:
                yield f"left behind: {sorted(map(str, held))[:5]}"
            return
        for path, data in held.items():
            if any(part.startswith(".") for part in path.parts) or path.name.endswith(_LOGS):
                if ".partial" in path.name:
                    yield f"left behind: {path}"
                continue
            if name != "checkpoints" and path in whole and path.suffix == ".dcm":
                if data != whole[path]:
                    yield f"{path} is not whole"
            elif path.suffix == ".json":
                with contextlib.suppress(ValueError):
                    json.loads(data)
                    continue
                yield f"{path} is cut short"


@contextlib.contextmanager
def _disk(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes, empty."""
    place.mkdir(exist_ok=True)
    mount: Callable[..., object] = functools.partial(subprocess.run, check=True)
    mount(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)])
    try:
        yield
    finally:
        mount(["umount", "--lazy", str(place)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--inside", type=Path)
    asked, _ = parser.parse_known_args()
    if asked.inside is None:
        script(disk_full, 20)
    parser.add_argument("--count", type=int)
    parser.add_argument("commands", nargs="+")
    given = parser.parse_args()
    found = inside(given.inside, given.count, given.commands)
    print(json.dumps({"count": found.count, "failures": found.failures, "figures": found.figures}))
