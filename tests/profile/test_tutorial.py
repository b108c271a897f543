"""The tutorial of docs/how-to/share-profiles.md, its words typed as they stand, on quick scans."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cvsct.api.profile import load_profile
from tests.conftest import phantom_hu
from tests.support.commands import Run
from tests.support.profiles import write_patient

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "share-profiles.md"
SITES = {
    "pairs/kernel/train/Br44": 1.0, "pairs/vendor/train/ge-standard": 0.0,
    "pairs/vendor/train/philips-b": 0.5,
}  # fmt: skip


def commands() -> list[str]:
    """Commands of the section, in their order."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.split("## Three sites")[1].split("\n## ")[0]
    section = section.split("A fourth hospital")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("cvsct ")]


def write_sites(root: Path) -> None:
    """Two patients at each site, as the simulation of the tutorial would write them."""
    for number, (site, blur_px) in enumerate(SITES.items()):
        for patient in (10 * number, 10 * number + 1):
            hu = phantom_hu(60 + patient, blur_px, size_px=256)
            write_patient(root / site / str(patient), 60 + patient, hu, f"patient {patient}")


def test_the_tutorial_runs(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulate, *others = commands()
    words = shlex.split(simulate)
    assert words[:4] == ["cvsct", "simulate", "--out", "sites"]
    write_sites(tmp_path / "sites")
    assert len(others) == 7
    for line in others:
        code, said, err = run(*shlex.split(line)[1:])
        assert code == 0, f"{line}: {said}{err}"
    for name in ("siemens", "ge", "philips"):
        assert load_profile(tmp_path / f"{name}.profile").n_patients == 2
    for name in ("ge", "philips"):
        assert (tmp_path / f"{name}_harmonized" / "manifest.json").exists()


@pytest.mark.slow
def test_the_tutorial_runs_with_its_own_scans(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands():
        code, said, err = run(*shlex.split(line)[1:])
        assert code == 0, f"{line}: {said}{err}"
