"""The page on adding a scanner, as it stands: its definition is read, its pair fits it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvsct.simulation import pairs
from cvsct.simulation.physics.definition import load_definition
from tests.support.pages import ROOT, blocks_of

PAGE = ROOT / "docs" / "how-to" / "add-a-scanner.md"


def test_the_scanner_of_the_page_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    definition, reading, pair = (b.text for b in blocks_of(PAGE) if b.mark.startswith("run by"))
    file = tmp_path / "src/cvsct/simulation/physics/definitions/my-scanner.toml"
    file.parent.mkdir(parents=True)
    file.write_text(definition, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(reading, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("my-scanner ['Bl64', 'Br40', 'SOFT'] (70")
    made = eval(compile(pair, str(PAGE), "eval"), dict(vars(pairs)))
    for technique in made.techniques:
        own = technique.scanner == "my-scanner"
        scanner = load_definition(file if own else technique.scanner)
        assert technique.kernel in scanner.kernels
        assert technique.kvp in scanner.tube.kvp
