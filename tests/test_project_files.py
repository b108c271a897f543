"""Files that other programs read: the workflow, hooks and the citation."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import cvsct
from scripts import build_package, check_release, dependency_table
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


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_name_no_host_and_no_secret(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    assert not re.search(r"https?://|secrets\.|index-url|self-hosted", text)


def test_ci_runs_what_the_readme_and_the_makefile_have() -> None:
    made = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert made == ["test", "docs", "wheel-test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in made if f"\n{name}: " not in makefile] == []
    assert "scripts/build_package.py" in makefile
    assert "scripts/core_install.py --wheel dist/*.whl" in makefile


def test_a_tag_makes_a_release_of_what_was_tested() -> None:
    release = parsed(".github/workflows/release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as a truth value
    jobs = release["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in parsed(".github/workflows/ci.yml")[True]
    assert [jobs[name]["needs"] for name in ("ci", "package", "release", "index")] == [
        "version", "ci", "package", "release",
    ]  # fmt: skip
    assert commands(jobs["version"])[0].startswith("python scripts/check_release.py")
    assert "make wheel-test" in commands(jobs["package"])[0]
    writing = [name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()]
    assert writing == ["release", "index"]
    assert release["permissions"] == {"contents": "read"}


CITED = "version: 0.2.0\ndate-released: 2026-12-24\n"


@pytest.mark.parametrize(
    ("tag", "code", "citation", "changelog", "told"),
    [
        ("v0.2.0", "0.2.0", CITED, "## 0.2.0 (2026-12-24)", ""),
        ("0.2.0", "0.2.0", CITED, "## 0.2.0 (2026-12-24)", "not a tag of a release"),
        ("v0.2.0", "0.1.0", CITED, "## 0.2.0 (2026-12-24)", "__init__.py names 0.1.0"),
        (
            "v0.2.0",
            "0.2.0",
            "version: 0.1.0\n",
            "## 0.2.0 (2026-12-24)",
            "CITATION.cff names 0.1.0",
        ),
        ("v0.2.0", "0.2.0", CITED, "## 0.2.0 (unreleased)", "(unreleased)"),
        ("v0.2.0", "0.2.0", CITED, "## 0.1.0 (2026-12-24)", "begins with 0.1.0"),
        ("v0.2.0", "0.2.0", CITED, "## 0.2.0 (2026-12-25)", "no date-released"),
    ],
)
def test_a_tag_must_fit_what_is_tagged(
    tag: str, code: str, citation: str, changelog: str, told: str
) -> None:
    text = f'__version__ = "{code}"\n', f"# Changelog\n\n{changelog}\n\n### Added\n- a\n"
    found = check_release.faults(tag, text[0], citation, text[1])
    assert bool(found) == bool(told)
    assert told in "\n".join(found)


def test_the_changelog_is_one_that_a_release_can_be_made_of() -> None:
    sections = check_release.SECTION.findall(check_release.read("CHANGELOG.md"))
    assert [name for name, _, _ in sections][-1] == "0.1.0"
    assert all(body.strip() for _, _, body in sections)


def test_builds_that_differ_are_told(tmp_path: Path) -> None:
    for folder, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.whl").write_bytes(content)
        (tmp_path / folder / "same").write_bytes(b"0")
    (tmp_path / "a" / "only").write_bytes(b"0")
    first, second = ({p.name: p for p in (tmp_path / f).iterdir()} for f in "ab")
    assert build_package.differing(first, second) == ["only", "x.whl"]
    assert build_package.differing(first, first) == []


def test_the_readme_on_an_index_has_no_path_of_the_repository() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert "](docs/gallery/ge-to-siemens.webp)" in text, "one picture, by a relative path"
    for change in told["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    assert not re.search(r"\]\((?!https?:)|!\[|<!--", text)
    assert "before" not in text.partition("## Try it")[0], "the picture's caption went with it"
    for command in ("make demo ", "make test ", "pip install ", "import cvsct\n"):
        assert command in text


def test_the_table_of_dependencies_is_up_to_date() -> None:
    assert dependency_table.PAGE.read_text(encoding="utf-8") == dependency_table.page(), (
        "run python scripts/dependency_table.py, and look at licenses that changed"
    )


def test_every_dependency_has_a_license_and_none_asks_for_source() -> None:
    rows = re.findall(r"^\| `[^|]+\| [^|]+\| ([^|]*) \|", dependency_table.page(), re.MULTILINE)
    assert len(rows) > 25
    assert all(rows)
    assert not [row for row in rows if re.search(r"GPL|MPL|SSPL|proprietary", row, re.IGNORECASE)]


@pytest.mark.parametrize("name", ["bug", "question"])
def test_issue_forms_are_forms_and_warn_of_patients_data(name: str) -> None:
    form = parsed(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= form.keys()
    kinds = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert {part["type"] for part in form["body"]} <= kinds
    assert all("label" in part["attributes"] for part in form["body"] if part["type"] != "markdown")
    required = [part for part in form["body"] if part.get("id") == "care"]
    assert required[0]["attributes"]["options"][0]["required"] is True


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
