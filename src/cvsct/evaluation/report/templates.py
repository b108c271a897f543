"""Fills the package's HTML templates; every page is one file and needs no network."""

from __future__ import annotations

import importlib.resources
from typing import Any

from cvsct import __version__
from cvsct.evaluation.extras import load_extra


def render(template: str, **values: Any) -> str:
    """A template of this folder with its values, the shared style and the version.

    Text is escaped, tables among it; a value that the template needs and does not get is an error.
    """
    jinja = load_extra("jinja2")
    environment = jinja.Environment(
        autoescape=True, undefined=jinja.StrictUndefined, loader=jinja.FunctionLoader(package_text)
    )
    page: str = environment.get_template(template).render(
        style=package_text("page.css"), version=__version__, **values
    )
    return page


def package_text(name: str) -> str:
    """A file of this folder: a template, the style or a script."""
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")
