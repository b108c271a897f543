"""One dialect of settings: read, refused and described alike for every method."""

from __future__ import annotations

import sys
from typing import Literal

import pytest
from pydantic import Field

from cvsct.core.errors import MissingExtraError, UsageError
from cvsct.core.settings import Settings
from cvsct.methods.base import RETIRED
from cvsct.methods.registry import METHODS
from cvsct.methods.settings import PRESETS, describe_settings, read_settings, refuse_unknown_preset
from cvsct.model.bundle import Bundle
from cvsct.model.pretrained import bundled, bundled_names


class Small(Settings):
    kind: Literal["small"] = "small"
    """Which it is."""

    width: int = Field(default=4, ge=1, lt=9)
    """Filters of
    the first level."""


class Large(Settings):
    kind: Literal["large"] = "large"
    depth: int = 3


class Both(Settings):
    rate: float | None = Field(default=None, gt=0)
    window_hu: tuple[float, float] = (-1.0, 1.0)
    widths: tuple[int, ...] = ()
    part: Small = Small()
    either: Small | Large = Field(default=Small(), discriminator="kind")


def refusal(given: dict[str, object]) -> str:
    with pytest.raises(UsageError) as refused:
        read_settings(Both, given)
    return str(refused.value)


def test_given_settings_lie_over_the_presets_and_reach_into_parts() -> None:
    preset = {"part": {"width": 2}, "rate": 0.5}
    read = read_settings(Both, {"part.width": 3, "either.kind": "large"}, preset)
    assert read == Both(rate=0.5, part=Small(width=3), either=Large())
    assert preset == {"part": {"width": 2}, "rate": 0.5}
    assert read_settings(Both, {"part": {"width": 5}}, preset).part.width == 5


@pytest.mark.parametrize(
    ("given", "wrong", "nearest", "choices"),
    [
        ({"raet": 1}, "raet", "rate", "rate, window_hu, widths, part, either (part., either. "),
        ({"prat.width": 1}, "prat.width", "part.width", "rate, window_hu"),
        ({"part.widht": 1}, "part.widht", "part.width", "part.kind, part.width"),
        ({"part": {"widht": 1}}, "part.widht", "part.width", "part.kind, part.width"),
        ({"either.widht": 1, "either.kind": "small"}, "either.widht", "either.width", "either.k"),
        ({"either.dpeth": 1, "either.kind": "large"}, "either.dpeth", "either.depth", "either.k"),
        ({"PART.WIDTH": 1}, "PART.WIDTH", "part.width", "rate"),
    ],
)
def test_a_wrong_key_is_answered_with_the_nearest_right_one_and_the_choices(
    given: dict[str, object], wrong: str, nearest: str, choices: str
) -> None:
    words = f"no setting {wrong!r}; did you mean {nearest!r}? choose from {choices}"
    assert refusal(given).startswith(words)


def test_what_is_near_nothing_is_answered_with_the_choices_alone() -> None:
    assert refusal({"zzz": 1}).startswith("no setting 'zzz'; choose from rate, ")


def test_wrong_values_name_their_key_without_the_tag_of_a_union() -> None:
    assert refusal({"either.kind": "small", "either.width": 9}).startswith(
        "setting either.width: Input should be less than 9"
    )
    assert refusal({"rate": 2, "rate.high": 1}) == "setting rate.high: rate has no parts"
    both = refusal({"rate": -1, "part.width": 0})
    assert both.count("setting ") == 2


def test_unknown_presets_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'stabel'; did you mean 'stable'\? choose one of paper"):
        refuse_unknown_preset("stabel")


def test_a_description_has_type_bounds_default_and_presets_of_every_key() -> None:
    presets = {"a": Both(part=Small(width=2)), "b": Both(rate=0.5)}
    infos = {info.key: info for info in describe_settings(Both, presets=presets)}
    assert list(infos) == [
        *("rate", "window_hu", "widths"),
        *("part.kind", "part.width", "either.kind", "either.width"),
    ]
    assert infos["part.width"].to_json() == {
        "key": "part.width",
        "type": "int",
        "default": 4,
        "bounds": ">= 1, < 9",
        "description": "Filters of the first level.",
        "presets": {"a": 2, "b": 4},
    }
    assert (infos["rate"].type, infos["rate"].bounds) == ("float or none", "> 0")
    assert infos["rate"].presets == {"a": None, "b": 0.5}
    assert infos["window_hu"].type == "list of 2 float"
    assert infos["window_hu"].default == [-1.0, 1.0]
    assert infos["widths"].type == "list of int"
    assert infos["part.kind"].type == "'small'"
    assert infos["either.kind"].type == "'small' | 'large'"


@pytest.mark.parametrize("name", list(METHODS))
def test_every_setting_of_every_method_is_described_and_can_be_given(name: str) -> None:
    row = METHODS[name]
    infos = row.describe_settings()
    given = {info.key: info.default for info in infos}
    assert row.configure("cpu", {**row.settings, **given}) == row.configure("cpu", row.settings)
    for info in infos:
        assert info.description, info.key
        assert list(info.presets) == (list(PRESETS) if "preset" in row.uses else [])
        assert info.default == info.presets.get("cpu", info.default)
    for key, value in row.settings.items():
        (info,) = (info for info in infos if info.key == key)
        assert info.default == value


def test_rows_show_what_distinguishes_them() -> None:
    def default(name: str, key: str) -> object:
        (info,) = (info for info in METHODS[name].describe_settings() if info.key == key)
        return info.default

    assert (default("spectrum", "gains"), default("spectrum-plain", "gains")) == ("two", "one")
    assert (default("cvsct", "weight_domain"), default("cyclegan", "weight_domain")) == (0.5, 0.0)
    assert default("choe-cnn", "generator.convolutions") == 6
    assert default("ganai", "generator.depth") == 3
    assert METHODS["input"].describe_settings() == ()


def test_the_settings_of_a_network_name_the_extra_that_brings_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "cvsct.training.cyclegan.settings", raising=False)
    monkeypatch.delitem(sys.modules, "cvsct.training.texture_loss", raising=False)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        with pytest.raises(MissingExtraError, match=r"settings of a network.*\[train\]"):
            METHODS["cvsct"].describe_settings()


@pytest.mark.parametrize("name", [name for name in bundled_names() if name.endswith("spectrum")])
def test_settings_of_bundled_models_are_read_as_they_were_stored(name: str) -> None:
    settings = Bundle.read(bundled(name)).settings
    stored = {key: value for key, value in settings.items() if key not in RETIRED}
    read = METHODS["spectrum"].settings_model().model_validate(stored)
    assert read.model_dump(mode="json", exclude_unset=True) == stored
