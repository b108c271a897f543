"""Fills the package's HTML templates; every page is one file and needs no network."""

from __future__ import annotations

import importlib.resources
from typing import Any

from cvsct import __version__
from cvsct.evaluation.extras import load_extra


def render(template: str, **values: Any) -> str:
    """A template of this folder with its values, the shared style and the version.

    Text is escaped; a value that the template needs and does not get is an error.
    """
    jinja = load_extra("jinja2")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined)
    page: str = environment.from_string(_text(template)).render(
        style=as_is(_text("page.css")), version=__version__, **values
    )
    return page


def as_is(text: str) -> Any:
    """Text that is HTML, style or script already and must not be escaped."""
    return load_extra("markupsafe").Markup(text)


def _text(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")
