"""Words for a terminal."""

from __future__ import annotations

import pytest

from cvsct.core.text import counted, did_you_mean

MODELS = ("ge-lung-siemens-bl64-spectrum", "siemens-bl64-br40-spectrum")


def test_a_number_goes_with_its_noun() -> None:
    assert counted(1, "row") == "1 row"
    assert counted(0, "row") == "0 rows"
    assert counted(2, "body", "bodies") == "2 bodies"
    assert counted(1, "series is", "series are") == "1 series is"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("ge-lung", MODELS[0]), ("Siemens-BL64", MODELS[1]), ("siemens-bl64-br40-spectrm", MODELS[1]),
     ("xy", ""), ("ge", "")],
)  # fmt: skip
def test_the_nearest_name_is_proposed_also_for_a_part_of_it(wanted: str, found: str) -> None:
    assert did_you_mean(wanted, MODELS) == (f"did you mean {found!r}? " if found else "")
