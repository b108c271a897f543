"""Files that other programs read: the workflow, hooks and the citation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import cvsct
from scripts.check_files import faults

ROOT = Path(__file__).resolve().parents[1]


def parsed(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"].strip() for step in job["steps"] if "run" in step]


def test_the_citation_has_what_cff_asks_for() -> None:
    citation = parsed("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == cvsct.__version__
    assert citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == [
        "Selim", "Zhang", "Fei", "Zhang", "Ge", "Chen",
    ]  # fmt: skip
    known = {
        *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi"),
        *("identifiers", "keywords", "license", "license-url", "message", "preferred-citation"),
        *("references", "repository", "repository-artifact", "repository-code", "title", "type"),
        *("url", "version"),
    }
    assert citation.keys() <= known


def test_linux_runs_what_ci_runs() -> None:
    job = parsed(".github/workflows/ci.yml")["jobs"]["linux"]
    assert commands(job) == [".ci/run"]
    supported = re.findall(
        r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    assert job["strategy"]["matrix"]["python"] == supported
    mode = subprocess.run(
        ["git", "ls-files", "--stage", ".ci/run"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert not mode or mode.startswith("100755")


def test_laptops_test_what_exists() -> None:
    job = parsed(".github/workflows/ci.yml")["jobs"]["laptops"]
    assert set(job["strategy"]["matrix"]["os"]) == {"windows-latest", "macos-latest"}
    (tests,) = (words.split() for words in commands(job) if "pytest tests/" in words)
    assert [name for name in tests[3:] if not (ROOT / name).is_file()] == []


def test_the_workflow_names_no_host_and_no_secret() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert not re.search(r"https?://|secrets\.|index-url|self-hosted", text)


def test_hooks_lint_as_make_does_and_need_no_network() -> None:
    (local,) = parsed(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    entries = {hook["id"]: hook["entry"].replace(".venv/bin", "$(BIN)") for hook in local["hooks"]}
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2]
    for name in ("ruff", "ruff-format", "mypy"):
        assert f"\t{entries[name]}" in lint


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.py", b"x = 1\n", ""), ("a.py", b"", ""), ("a.bin", bytes(600), ""),
        ("a.py", b"x = 1", "line break"), ("a.py", b"x\n\n", "line break"),
        ("a.bin", bytes(1_300_000), "1300000 bytes"),
        ("a.bin", bytes(128) + b"DICM" + bytes(9), "never committed"),
        ("a", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "never committed"),
        ("a.bin", bytes(344) + b"n+1\0", "never committed"), ("A.DCM", b"x\n", "never committed"),
    ],
)  # fmt: skip
def test_a_file_that_must_not_be_committed_is_told(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    found = faults(tmp_path / name)
    assert len(found) == bool(why)
    assert why in "".join(found)


def test_what_is_committed_could_be() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    if not names:
        pytest.skip("no clone of the repository")
    done = subprocess.run(
        [sys.executable, "scripts/check_files.py", *names],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    assert done.returncode == 0


def test_types_and_shapes_are_checked_at_run_time() -> None:
    """Types by beartype alone in modules without shapes; both in those that have some."""
    from cvsct.core.names import portable_name
    from cvsct.core.volume import HUWindow

    with pytest.raises(Exception, match="portable_name"):
        portable_name(3)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="to_unit"):
        HUWindow().to_unit("air")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="restore"):
        HUWindow().restore(np.zeros(3), np.zeros(4))
