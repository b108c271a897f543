"""dciodvfy and dcentvfy (Debian dicom3tools) asked what they find wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

TOOLS = ("dciodvfy", "dcentvfy")


def missing() -> str:
    """Which of them is not installed; empty where both are."""
    return next((f"{tool} is not installed (dicom3tools)" for tool in TOOLS
                 if shutil.which(tool) is None), "")  # fmt: skip


def errors(*command: str | Path) -> set[str]:
    """Lines starting with Error; the exit code tells nothing."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return {line for line in lines if line.startswith("Error")}
