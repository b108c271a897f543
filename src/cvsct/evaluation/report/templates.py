"""Rendering of the package's HTML templates to pages of one file that need no network."""

from __future__ import annotations

import importlib.resources
from typing import Any

from cvsct import __version__
from cvsct.evaluation.extras import load_extra


def render(template: str, **values: Any) -> str:
    """Render a template of this folder with values, the shared style and the version.

    All text is escaped, including that of tables.

    Args:
        template: name of the template.
        values: values of its variables; a missing one is an error.

    Raises:
        MissingExtraError: if jinja2 is not installed.
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
    """Text of a file of this folder: a template, the style or a script."""
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")
