"""Packages that `cvsct` needs, with their licenses, as docs/reference/dependencies.md lists them.

    python scripts/dependency_table.py            # writes the page
    python scripts/dependency_table.py --check    # ends with 1 if the page is not up to date
    python scripts/dependency_table.py --all      # prints what those packages need in turn, too

Names and versions are those of pyproject.toml, licenses those of the installed packages' metadata.
A change of a license is thus a failing test, to be looked at by a person.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "reference" / "dependencies.md"
EXTRAS = ("simulate", "evaluate", "train", "cohort", "parquet")
"""Of those who use the program; `docs` and `dev` are for those who change it."""

PURPOSE = {
    "filelock": "one run at a time in a folder",
    "numpy": "arrays",
    "scipy": "filters, transforms, statistics",
    "pydicom": "DICOM",
    "pyjpegls": "decodes JPEG-LS",
    "pylibjpeg": "finds decoders",
    "pylibjpeg-openjpeg": "decodes JPEG 2000",
    "python-gdcm": "decodes JPEG, in a process of its own",
    "openvino": "runs networks on processors",
    "safetensors": "weights of models",
    "nibabel": "NIfTI",
    "jaxtyping": "shapes in types",
    "typer": "the command line",
    "rich": "tables and bars on a terminal",
    "pydantic": "settings",
    "numba": "compiles the simulated rays",
    "xraydb": "attenuation of elements",
    "pyradiomics-bhklab": "radiomic features",
    "scikit-image": "SSIM, registration",
    "pandas": "tables",
    "matplotlib": "figures",
    "jinja2": "reports",
    "ruamel-yaml": "parameter files of PyRadiomics",
    "highdicom": "SEG objects",
    "torch": "trains networks",
    "onnx": "graphs of trained networks",
    "tensorboard": "curves of a training",
    "h5py": "VGG weights as Keras publishes them",
    "dask": "cohorts on many machines",
    "pyarrow": "Parquet",
}
SPDX = {
    "apache 2.0": "Apache-2.0", "apache software license": "Apache-2.0", "mit license": "MIT",
    "bsd license": "BSD", "bsd-3-clause": "BSD-3-Clause", "3-clause bsd license": "BSD-3-Clause",
    "python software foundation license": "PSF", "isc license": "ISC",
}  # fmt: skip
"""What older metadata say, in the words of newer ones; "BSD" where they do not say which."""

HEAD = """# Dependencies

What `cvsct` installs, directly, and under which license. The core needs none of the extras. As far
as the packages' own metadata tell, no license of the core asks for more than a notice; the wheels
of some packages hold further libraries, which their own notices list. This page is made by
`python scripts/dependency_table.py`; with `--all` it prints what these packages need in turn.

"""


def license_of(metadata: Message) -> str:
    """License that a package declares: its expression, a short field, or its classifiers."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier", [])
        if text.startswith("License :: ") and text != "License :: OSI Approved"
    ]
    field = str(metadata.get("License") or "").strip()
    candidates = [field] if field and len(field) <= 40 and "\n" not in field else []
    for text in (*candidates, *classifiers):
        if known := SPDX.get(text.lower()):
            return known
    return "; ".join(candidates or classifiers)


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def groups() -> Iterator[tuple[str, list[Requirement]]]:
    """Requirements of the core and of each extra."""
    told = project()
    yield "core", [Requirement(text) for text in told["dependencies"]]
    for extra in EXTRAS:
        yield extra, [Requirement(text) for text in told["optional-dependencies"][extra]]


def page() -> str:
    """The page as it should be.

    Raises:
        PackageNotFoundError: if a package is not installed here.
        KeyError: if nothing tells what a package is for.
    """
    parts = [HEAD.rstrip("\n")]
    for group, requirements in groups():
        title = "Core: `pip install .`" if group == "core" else f"Extra: `[{group}]`"
        rows = ["| package | version | license | for |", "|---|---|---|---|"]
        for wanted in sorted(requirements, key=lambda one: one.name.lower()):
            purpose = PURPOSE[canonicalize_name(wanted.name)]
            found = license_of(distribution(wanted.name).metadata)
            extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
            bounds = ", ".join(sorted(map(str, wanted.specifier), reverse=True))
            rows.append(f"| `{wanted.name}{extras}` | {bounds} | {found} | {purpose} |")
        parts.append(f"## {title}\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def closure() -> dict[str, str]:
    """Every package that the core and the extras need in turn, as installed here, with licenses."""
    found: dict[str, str] = {}
    waiting = [wanted for _, requirements in groups() for wanted in requirements]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another system, or an extra that was not installed
            continue
        version = package.version
        found[name] = f"{version}: {license_of(package.metadata) or 'not declared'}"
        needed = [Requirement(text) for text in package.requires or []]
        extras = wanted.extras or {""}
        waiting += [
            one
            for one in needed
            if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return dict(sorted(found.items()))


def main() -> None:
    """Write, check or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true")
    choice.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    if arguments.all:
        for name, told in closure().items():
            print(re.sub(r"\s+", " ", f"{name} {told}"))
    elif not arguments.check:
        PAGE.write_text(page(), encoding="utf-8", newline="\n")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE.relative_to(REPOSITORY)} is not up to date: run {Path(__file__).name}")


if __name__ == "__main__":
    main()
