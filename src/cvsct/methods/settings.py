"""Settings of methods: one way to read them, to explain wrong ones, and to describe them.

Every method's settings are a `cvsct.core.settings.Settings` beside the code that uses them. Keys
with dots reach into their parts: `generator.width`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from cvsct.core.errors import UsageError
from cvsct.core.settings import Settings
from cvsct.core.text import did_you_mean

PRESETS = ("paper", "stable", "cpu")
"""What a training may be asked to be; a method that knows no presets notes it."""

BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

AnySettings = TypeVar("AnySettings", bound=Settings)


def refuse_unknown_preset(name: str) -> None:
    """Refuse a preset that is none.

    Raises:
        UsageError: with the nearest one, and the list of those there are.
    """
    if name not in PRESETS:
        raise UsageError(
            f"no preset {name!r}; {did_you_mean(name, PRESETS)}choose one of {', '.join(PRESETS)}"
        )


def read_settings(
    kind: type[AnySettings], given: Mapping[str, Any], preset: Mapping[str, Any] | None = None
) -> AnySettings:
    """A preset's values with the given settings over them.

    Args:
        given: values by key; dotted keys reach into the parts.
        preset: nested values; the model's own defaults where there is none.

    Raises:
        UsageError: for a key that does not exist, with the nearest one and a list of those that
            do, or for a value that does not fit.
    """
    merged = _merged(preset or {}, given)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        explained = (_explain(kind, merged, given, detail) for detail in error.errors())
        raise UsageError("; ".join(dict.fromkeys(explained))) from error


@dataclass(frozen=True)
class SettingInfo:
    """One setting, as a list of settings shows it.

    Args:
        key: with dots where it is a setting of a part.
        type: `int`, `float`, `bool`, `str`, choices as in `'l1' | 'l2'`, or a list of these.
        default: the value where nothing is said; a plain JSON value.
        bounds: such as `>= 0, < 1`; empty where every value of the type will do.
        presets: the value in each preset, for methods that know presets.
    """

    key: str
    type: str
    default: Any
    bounds: str
    description: str
    presets: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def describe_settings(
    model_type: type[AnySettings],
    default: AnySettings | None = None,
    presets: Mapping[str, AnySettings] | None = None,
) -> tuple[SettingInfo, ...]:
    """Every setting of a model and of its parts, in the order in which they are written.

    Args:
        default: the settings where nothing is said; the model's own where not given. Of a part
            that may be one of several models, the settings of the one that is in here are listed.
        presets: the settings that each preset gives.
    """
    return tuple(_described(default or model_type(), presets or {}))


def _described(
    default: Settings, presets: Mapping[str, Settings], prefix: str = "", tags: Sequence[str] = ()
) -> Iterator[SettingInfo]:
    """Settings of a part, whose first field may tell one of several models apart by a tag."""
    plain = default.model_dump(mode="json")
    for name, field in type(default).model_fields.items():
        value = getattr(default, name)
        if isinstance(value, Settings):
            parts = {preset: getattr(each, name) for preset, each in presets.items()}
            yield from _described(value, parts, f"{prefix}{name}.", _tags(field))
            continue
        is_tag = len(tags) > 1 and plain[name] in tags
        yield SettingInfo(
            key=prefix + name,
            type=" | ".join(map(repr, tags)) if is_tag else _type_name(field.annotation),
            default=plain[name],
            bounds=_bounds(field),
            description=" ".join((field.description or "").split()),
            presets={
                preset: each.model_dump(mode="json")[name] for preset, each in presets.items()
            },
        )


def _type_name(annotation: Any) -> str:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(repr, members))
    if origin is tuple:
        if members[-1] is Ellipsis:
            return f"list of {_type_name(members[0])}"
        return f"list of {len(members)} {_type_name(members[0])}"
    if origin in (Union, UnionType):
        return " or ".join(_type_name(each) for each in members)
    return "none" if annotation is NoneType else str(annotation.__name__)


def _bounds(field: FieldInfo) -> str:
    limits = (
        f"{sign} {getattr(each, name):g}"
        for each in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(each, name)
    )
    return ", ".join(limits)


def _merged(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(preset))
    for key, value in given.items():
        *parts, last = key.split(".")
        place = merged
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(f"setting {key}: {part} has no parts")
        place[last] = value
    return merged


def _explain(
    kind: type[Settings], merged: Mapping[str, Any], given: Mapping[str, Any], detail: Any
) -> str:
    key = _key(kind, detail["loc"])
    if detail["type"] == "extra_forbidden":
        asked = [each for each in given if each == key or each.startswith(f"{key}.")]
        return _no_setting(asked[0] if asked else key, kind, merged)
    message = detail["msg"].removeprefix("Value error, ")
    return f"setting {key}: {message}" if key else message


def _no_setting(key: str, kind: type[Settings], merged: Mapping[str, Any]) -> str:
    """Refusal of a key: the nearest that exists, and the choices in the part that it names."""
    known = list(_keys(kind, merged))
    part = key.rpartition(".")[0]
    beside = [each for each in known if part and each.rpartition(".")[0] == part]
    tops = list(dict.fromkeys(each.partition(".")[0] for each in known))
    parts = [top for top in tops if top not in known]
    choices = ", ".join(beside or tops) or "nothing, it has none"
    more = f" ({', '.join(f'{name}.' for name in parts)} have parts)" if parts else ""
    return (
        f"no setting {key!r}; {did_you_mean(key, known)}choose from {choices}"
        f"{'' if beside else more}"
    )


def _key(kind: type[Settings], place: Sequence[str | int]) -> str:
    """The key that pydantic's place of an error stands for: tags of a union are no part of it."""
    key: list[str] = []
    models: tuple[type[Settings], ...] = (kind,)
    for step in map(str, place):
        tagged = tuple(model for model in models if len(models) > 1 and _tag(model) == step)
        if tagged:
            models = tagged
            continue
        key.append(step)
        fields = [model.model_fields[step] for model in models if step in model.model_fields]
        models = _parts(fields[0]) if fields else ()
    return ".".join(key)


def _keys(kind: type[Settings], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key there is; of a part with several models, the keys of the one that is chosen."""
    for name, field in kind.model_fields.items():
        models = _parts(field)
        if not models:
            yield prefix + name
            continue
        inner = values.get(name)
        inner = inner if isinstance(inner, Mapping) else {}
        chosen = [model for model in models if _tag(model) in inner.values()]
        yield from _keys((chosen or models)[0], inner, f"{prefix}{name}.")


def _parts(field: FieldInfo) -> tuple[type[Settings], ...]:
    """The models that a field may hold; none for a plain value."""
    members = get_args(field.annotation) or (field.annotation,)
    return tuple(each for each in members if isinstance(each, type) and issubclass(each, Settings))


def _tags(field: FieldInfo) -> tuple[str, ...]:
    """What tells the models of a field apart, where it may hold several."""
    models = _parts(field)
    return tuple(map(_tag, models)) if len(models) > 1 else ()


def _tag(model: type[Settings]) -> str:
    """What tells a model from the others that a field may hold: its first field's default."""
    return str(next(iter(model.model_fields.values())).default)
