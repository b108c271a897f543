from __future__ import annotations

from pathlib import Path

import pytest

from cvsct.core.errors import UsageError
from cvsct.evaluation.scorecard.tolerances import Tolerances


def test_every_default_names_its_source() -> None:
    defaults = Tolerances.read()
    named = [defaults.features, defaults.noise_level, defaults.noise_texture, defaults.resolution,
             *defaults.ct_numbers.values(), defaults.geometry, defaults.guards]  # fmt: skip
    assert all(tolerance.source for tolerance in named)
    assert set(defaults.ct_numbers) == {"lung", "fat", "soft", "bone"}


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[ct_numbers.bone]\npasses = 1.0\n", encoding="utf-8")
    own, defaults = Tolerances.read(file), Tolerances.read()
    assert own.ct_numbers["bone"].passes == 1.0
    assert own.ct_numbers["bone"].fails == defaults.ct_numbers["bone"].fails
    assert own.ct_numbers["bone"].source == "given by the user"
    assert own.ct_numbers["lung"] == defaults.ct_numbers["lung"]
    assert Tolerances.given(own) is own
    assert Tolerances.given(None) == defaults


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[noise]\npasses = 1", "no noise; known here are features"),
        ("[noise_level]\npass = 1", "no pass; known here are passes, fails"),
        ("[noise_level]\npasses = 0.5", "fails=0.2 lies within passes=0.5"),
        ("[noise_level]\npasses = -1", "greater than or equal to 0"),
        ("[features]\npasses = 0.5", "lies above passes"),
        ("noise_level = 3", "noise_level is a table"),
        ("[noise_level]\npasses = 'wide'", "valid number"),
        ("[noise_level]\npasses = '0.1'", "valid number"),
        ("[noise_level]\npasses = true", "valid number"),
        ("[noise_level\n", "no TOML"),
        ("[noise_level]\npasses = inf\nfails = inf", "finite number"),
        ("[features]\nfails = -inf", "finite number"),
        ("[noise_level]\nfails = " + 5000 * "9", "no TOML"),
        ("a = " + 3000 * "[" + 3000 * "]", "no TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        Tolerances.read(file)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[noise_level]\npasses = 0.05\n", encoding="utf-8-sig")
    assert Tolerances.read(file).noise_level.passes == 0.05


def test_a_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[noise_level]\npasses = 0.05\n", encoding="utf-16")
    with pytest.raises(UsageError, match="cannot be read"):
        Tolerances.read(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Tolerances.read(tmp_path / "none.toml")
