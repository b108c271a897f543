"""Each command as a terminal shows it: help, a typical run, typical errors, and a cohort of forty.

`python notebook/scripts/terminal.py --out runs/terminal` makes its own scans and writes
`terminal.md` there. With `--package FOLDER` it runs the `src` of another checkout, and with
`--before FILE` it writes `compared.md` beside, of that page and its own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pydicom import Dataset  # noqa: E402

from tests.conftest import phantom_hu  # noqa: E402
from tests.support.dicom_files import write_series  # noqa: E402

COLUMNS = 100
WIDTH, MAX_LINES = 150, 30
"""Of a block in the notebook's page."""
INTRODUCTION = """# What a terminal shows

Made by `python notebook/scripts/terminal.py --out runs/now --before runs/before/terminal.md`; what
stood before by the same script with `--package` and a checkout of b9c5140. Scans are tiny phantoms.
Lines are cut at 150 characters, long lists after 30 lines; the pages of help are left out
(`cvsct COMMAND --help` shows them)."""
START = (  # Ctrl-C is ignored by what a shell runs in the background, and by its children
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from cvsct.cli import main; main()"
)


class Terminal:
    """Runs commands in a folder and keeps what they print, as Markdown."""

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder, self.pages = folder, ["# What a terminal shows\n"]
        self._command = [sys.executable, "-c", START]
        self._environment = os.environ | {
            "PYTHONPATH": str(package / "src"), "COLUMNS": str(COLUMNS), "NO_COLOR": "1",
        }  # fmt: skip

    def title(self, text: str) -> None:
        """Begin a section."""
        self.pages.append(f"\n## {text}\n")

    def run(self, *words: str, stop_after_series: int = 0) -> None:
        """Run a command; with `stop_after_series` Ctrl-C is pressed when so many are written."""
        process = subprocess.Popen(
            [*self._command, *words], cwd=self.folder, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if stop_after_series:
            out = self.folder / words[words.index("--out") + 1]
            while len(list(out.glob("[0-9a-f]*/"))) < stop_after_series and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
        printed, _ = process.communicate()
        code = f"[exit code {process.returncode}]"
        self.pages.append(f"```\n$ cvsct {' '.join(words)}\n{printed.rstrip()}\n{code}\n```\n")

    def show(self, path: str, lines: int) -> None:
        """The beginning of a file."""
        file = self.folder / path
        text = (
            file.read_text(encoding="utf-8").splitlines() if file.exists() else ["(no such file)"]
        )
        shown = "\n".join(line[:160] for line in text[:lines])
        self.pages.append(f"```\n$ head -{lines} {path}\n{shown}\n```\n")


def write_cohort(folder: Path) -> None:
    """Forty series, eight of which are refused in five ways."""

    def gap(ds: Dataset, i: int) -> None:
        ds.ImagePositionPatient = [-100, -120, 5 * i + (40 if i > 2 else 0)]

    def cut(ds: Dataset, i: int) -> None:
        ds.PixelData = ds.PixelData[: 100 if i == 1 else None]

    def kernel(ds: Dataset, i: int) -> None:
        ds.ConvolutionKernel = "K9"

    def unscaled(ds: Dataset, i: int) -> None:
        del ds.RescaleSlope, ds.RescaleIntercept

    def stacked(ds: Dataset, i: int) -> None:
        ds.ImagePositionPatient = [-100, -120, 0]

    kinds = {3: gap, 11: gap, 17: gap, 5: cut, 23: cut, 29: kernel, 31: unscaled, 37: stacked}
    hu = phantom_hu(1, 0.0)
    for i in range(40):
        options = {"change": kinds[i]} if i in kinds else {}
        write_series(
            folder / f"patient_{i:02d}" / "CT", stored=(hu + 1024).astype("<u2"),
            series=f"1.2.7.{i}", **options,
        )  # fmt: skip


def pages(terminal: Terminal) -> None:
    """All that is shown."""
    sides = ("--source", "sharp", "--target", "soft")
    commands = ("inspect", "train", "harmonize", "evaluate", "simulate", "benchmark", "demo",
                "methods", "models", "doctor")  # fmt: skip
    terminal.title("Help")
    terminal.run("--help")
    for command in commands:
        terminal.run(command, "--help")
    terminal.title("Typical runs")
    terminal.run("inspect", "sharp")
    terminal.run("train", "spectrum", *sides, "--out", "model")
    terminal.run("harmonize", "sharp", "--model", "model", "--out", "harmonized")
    terminal.run("evaluate", "--harmonized", "harmonized", "--target", "soft", "--source", "sharp",
                 "--rois", "3", "--workers", "1", "--out", "report")  # fmt: skip
    terminal.run("methods")
    terminal.run("methods", "histogram")
    terminal.run("models")
    terminal.run("simulate", "--scale", "tiny", "--out", "scans", "--dry-run")
    terminal.title("Typical errors")
    terminal.run("inspect", "nowhere")
    terminal.run("train", "spectrun", *sides, "--out", "other")
    terminal.run("train", "spectrum", *sides, "--out", "other", "--set", "max_gian=3")
    terminal.run("train", "spectrum", "--source", "sharp", "--target", "sharp", "--out", "other")
    terminal.run("harmonize", "soft", "--model", "siemens-bl64-br40-spectrun", "--out", "other")
    terminal.run("harmonize", "cohort/patient_29", "--model", "model", "--out", "other")
    terminal.run("harmonize", "sharp", "--model", "model", "--out", "harmonized")
    terminal.run("harmonise", "sharp")
    terminal.run("evaluate", "--harmonized", "soft", "--target", "harmonized", "--out", "other")
    terminal.title("Forty series, eight of them refused in five ways")
    terminal.run("inspect", "cohort", "--quiet", "--csv", "found.csv")
    terminal.show("found.csv", 6)
    words = ("harmonize", "cohort", "--model", "model", "--workers", "2")
    terminal.run(*words, "--out", "dry", "--dry-run")
    terminal.run(*words, "--out", "all", stop_after_series=7)
    terminal.show("all/series.csv", 4)
    terminal.run(*words, "--out", "all", "--log-file", "cvsct.log")
    terminal.show("all/series.csv", 41)
    terminal.show("cvsct.log", 12)
    terminal.run(*words, "--out", "all", "--json", "--quiet")


def sections(text: str) -> dict[str, list[str]]:
    """Blocks of a written page by the title above them."""
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    return {
        title: [cut(block) for block in re.findall(r"```\n.*?\n```", content, re.S)]
        for title, content in zip(parts[1::2], parts[2::2], strict=True)
    }


def cut(block: str) -> str:
    """A block with its long lines and long lists cut."""
    lines = [line.rstrip() for line in block.replace(f"{ROOT}/", "").splitlines()]
    if len(lines) > MAX_LINES + 4:
        lines = [*lines[:MAX_LINES], "...", lines[-1]]
    return "\n".join(line[:WIDTH] + (" ..." if len(line) > WIDTH else "") for line in lines)


def compared(before: str, after: str) -> str:
    """The notebook's page: runs as they are now, errors and the cohort before and now."""
    old, new = sections(before), sections(after)
    runs, errors, cohort = list(new)[1:]
    pages = [INTRODUCTION, f"## {runs}, now", *new[runs]]
    pages += [f"## {errors}, before", *old[errors], f"## {errors}, now", *new[errors]]
    ran = [block for block in old[cohort] if "--out all\n" in block]
    pages += [f"## {cohort}, before", *ran, f"## {cohort}, now", *new[cohort]]
    return "\n\n".join(pages) + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--package", type=Path, default=ROOT, help="a checkout to run")
    parser.add_argument("--before", type=Path, help="terminal.md of another checkout, to compare")
    given = parser.parse_args()
    folder = given.out.resolve() / "work"
    shutil.rmtree(folder, ignore_errors=True)
    for name, seed, blur_px in (("sharp", 1, 0.0), ("soft", 2, 0.8)):
        stored = (phantom_hu(seed, blur_px) + 1024).astype("<u2")
        write_series(folder / name, stored=stored, series=f"1.2.{seed}")
    write_cohort(folder / "cohort")
    terminal = Terminal(folder, given.package.resolve())
    pages(terminal)
    text = "\n".join(terminal.pages)
    (given.out / "terminal.md").write_text(text, encoding="utf-8")
    if given.before:
        page = compared(given.before.read_text(encoding="utf-8"), text)
        (given.out / "compared.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
