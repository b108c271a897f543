"""Settings of methods: read them, explain wrong keys and values, and describe them.

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
"""Names of presets; a method without presets notes that one was given."""

BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

AnySettings = TypeVar("AnySettings", bound=Settings)


def refuse_unknown_preset(name: str) -> None:
    """Raise unless a preset of that name exists.

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
    """Merge given settings into a preset and check them.

    Args:
        given: values by key; dotted keys reach into the parts.
        preset: nested values; the model's own defaults where there is none.

    Raises:
        UsageError: for a key that does not exist, with the nearest one and a list of those that
            do, or for a value that does not fit.
    """
    merged = _merge(preset or {}, given)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        explained = (_explain(kind, merged, given, detail) for detail in error.errors())
        raise UsageError("; ".join(dict.fromkeys(explained))) from error


@dataclass(frozen=True)
class SettingInfo:
    """Description of one setting: key, type, default, bounds and value in each preset.

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
        """Plain JSON values."""
        return asdict(self)


def describe_settings(
    model_type: type[AnySettings],
    default: AnySettings | None = None,
    presets: Mapping[str, AnySettings] | None = None,
) -> tuple[SettingInfo, ...]:
    """Describe every setting of a model and its parts, in the order of their definition.

    Args:
        default: the settings where nothing is said; the model's own where not given. Of a part
            that may be one of several models, the settings of the one that is in here are listed.
        presets: the settings that each preset gives.
    """
    return tuple(_describe_fields(default or model_type(), presets or {}))


def _describe_fields(
    default: Settings, presets: Mapping[str, Settings], prefix: str = "", tags: Sequence[str] = ()
) -> Iterator[SettingInfo]:
    """Describe the settings of one part; `tags` are the values that select among several models."""
    plain = default.model_dump(mode="json")
    for name, field in type(default).model_fields.items():
        value = getattr(default, name)
        if isinstance(value, Settings):
            parts = {preset: getattr(settings, name) for preset, settings in presets.items()}
            yield from _describe_fields(value, parts, f"{prefix}{name}.", _model_tags(field))
            continue
        is_tag = len(tags) > 1 and plain[name] in tags
        yield SettingInfo(
            key=prefix + name,
            type=" | ".join(map(repr, tags)) if is_tag else _type_name(field.annotation),
            default=plain[name],
            bounds=_bounds(field),
            description=" ".join((field.description or "").split()),
            presets={
                preset: settings.model_dump(mode="json")[name]
                for preset, settings in presets.items()
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
        return " or ".join(_type_name(member) for member in members)
    return "none" if annotation is NoneType else str(annotation.__name__)


def _bounds(field: FieldInfo) -> str:
    limits = (
        f"{sign} {getattr(constraint, name):g}"
        for constraint in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(constraint, name)
    )
    return ", ".join(limits)


def _merge(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(preset))
    for key, value in given.items():
        *parts, last = key.split(".")
        section = merged
        for part in parts:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UsageError(f"setting {key}: {part} has no parts")
        section[last] = value
    return merged


def _explain(
    kind: type[Settings], merged: Mapping[str, Any], given: Mapping[str, Any], detail: Any
) -> str:
    key = _error_key(kind, detail["loc"])
    if detail["type"] == "extra_forbidden":
        given_keys = [
            given_key for given_key in given if given_key == key or given_key.startswith(f"{key}.")
        ]
        return _unknown_setting(given_keys[0] if given_keys else key, kind, merged)
    message = detail["msg"].removeprefix("Value error, ")
    return f"setting {key}: {message}" if key else message


def _unknown_setting(key: str, kind: type[Settings], merged: Mapping[str, Any]) -> str:
    """Message for an unknown key: the nearest key, and the choices in the part that it names."""
    known = list(_known_keys(kind, merged))
    part = key.rpartition(".")[0]
    same_part = [known_key for known_key in known if part and known_key.rpartition(".")[0] == part]
    top_level = list(dict.fromkeys(known_key.partition(".")[0] for known_key in known))
    parts = [name for name in top_level if name not in known]
    choices = ", ".join(same_part or top_level) or "nothing, it has none"
    parts_hint = f" ({', '.join(f'{name}.' for name in parts)} have parts)" if parts else ""
    return (
        f"no setting {key!r}; {did_you_mean(key, known)}choose from {choices}"
        f"{'' if same_part else parts_hint}"
    )


def _error_key(kind: type[Settings], location: Sequence[str | int]) -> str:
    """Dotted key of the field in which pydantic found an error, without the tags of unions."""
    key: list[str] = []
    models: tuple[type[Settings], ...] = (kind,)
    for step in map(str, location):
        tagged = tuple(model for model in models if len(models) > 1 and _model_tag(model) == step)
        if tagged:
            models = tagged
            continue
        key.append(step)
        fields = [model.model_fields[step] for model in models if step in model.model_fields]
        models = _part_models(fields[0]) if fields else ()
    return ".".join(key)


def _known_keys(kind: type[Settings], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """All dotted keys; of a part with several models, those of the selected one."""
    for name, field in kind.model_fields.items():
        models = _part_models(field)
        if not models:
            yield prefix + name
            continue
        inner = values.get(name)
        inner = inner if isinstance(inner, Mapping) else {}
        chosen = [model for model in models if _model_tag(model) in inner.values()]
        yield from _known_keys((chosen or models)[0], inner, f"{prefix}{name}.")


def _part_models(field: FieldInfo) -> tuple[type[Settings], ...]:
    """Settings models that a field may hold; empty for a plain value."""
    members = get_args(field.annotation) or (field.annotation,)
    return tuple(
        member for member in members if isinstance(member, type) and issubclass(member, Settings)
    )


def _model_tags(field: FieldInfo) -> tuple[str, ...]:
    """Tags that select among the models of a field; empty where it has only one."""
    models = _part_models(field)
    return tuple(map(_model_tag, models)) if len(models) > 1 else ()


def _model_tag(model: type[Settings]) -> str:
    """Tag of a model among the others of a field: the default of its first field."""
    return str(next(iter(model.model_fields.values())).default)
