"""The page on adding a method, as it stands: its module, its row and its commands."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from cvsct.methods import registry
from tests.support.commands import Run
from tests.support.pages import ROOT, blocks_of, words

PAGE = ROOT / "docs" / "how-to" / "add-a-method.md"
MODULE = "cvsct.methods.mean_shift"


def test_the_method_of_the_page_works(
    few_slices: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, row, commands = (b for b in blocks_of(PAGE) if b.mark.startswith("run by"))
    file = tmp_path / "mean_shift.py"
    file.write_text(module.text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, MODULE, loaded)
    spec.loader.exec_module(loaded)
    names = dict(vars(registry))
    exec(compile(row.text, str(PAGE), "exec"), names)
    monkeypatch.setitem(registry.METHODS, "mean-shift", names["MEAN_SHIFT"])
    for name, folder in (("scans_of_A", "sharp"), ("scans_of_B", "soft"), ("series_of_A", "sharp")):
        shutil.copytree(few_slices / folder, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for command in commands.commands:
        code, said, err = run(*words(command))
        assert code == 0, f"{command}: {said}{err}"
    assert (tmp_path / "harmonized" / "manifest.json").exists()
