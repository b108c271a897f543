"""The core alone: `pip install .` in an empty environment, its size, and a network run in it.

Run by `make core-install` with the development environment, which has PyTorch to export a tiny
model with; the new environment must do without. Prints figures as JSON; any failure ends it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_MB = 650
"""The design measured 534 MB; more than this is a dependency that does not belong in the core."""

NOT_CORE = ("torch", "onnx", "numba", "pandas", "matplotlib", "skimage", "highdicom")


def run(*words: str | Path, expect: int = 0) -> str:
    """Run a command outside the repository's packages; its output, or the end of this script."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != expect:
        sys.exit(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def write_inputs(folder: Path) -> None:
    """A tiny network with graphs as a model folder, and a series of four slices."""
    sys.path.insert(0, str(REPOSITORY))
    from cvsct.networks.export import with_graphs  # noqa: PLC0415
    from tests.networks.test_export import trained  # noqa: PLC0415
    from tests.support.dicom_files import write_series  # noqa: PLC0415

    with_graphs(trained({"width": 4, "reduction": 2})).write(folder / "model")
    write_series(folder / "series", 4)


def size_mb(folder: Path) -> float:
    """All files below a folder, compiled Python left out: it depends on what has run."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return sum(file.lstat().st_size for file in files) / 1e6


def main() -> None:
    """Install, measure, harmonise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB)
    limit_mb = parser.parse_args().limit_mb
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        begun = time.perf_counter()
        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python = scripts / "python"
        (site,) = json.loads(
            run(python, "-c", "import json, site; print(json.dumps(site.getsitepackages()[:1]))")
        )
        empty_mb = size_mb(Path(site))
        run(python, "-m", "pip", "install", "--quiet", "--no-compile", REPOSITORY)
        install_s = time.perf_counter() - begun
        installed_mb = size_mb(Path(site)) - empty_mb
        look = f"import importlib.util as u; print(*(n for n in {NOT_CORE} if u.find_spec(n)))"
        if found := run(python, "-c", look).split():
            sys.exit(f"the core brings {', '.join(found)}, which belong in an extra")
        begun = time.perf_counter()
        use = (scripts / "cvsct", "harmonize", folder / "series", "--model", folder / "model")
        said = run(*use, "--out", folder / "out")
        harmonize_s = time.perf_counter() - begun
        manifest = json.loads((folder / "out" / "manifest.json").read_text(encoding="utf-8"))
        engine = manifest["figures"]["engine"]
        if (engine["name"], manifest["figures"]["n_slices"]) != ("openvino", 4):
            sys.exit(f"expected four slices by OpenVINO, got {manifest['figures']}\n{said}")
        refusal = run(*use, "--out", folder / "other", "--engine", "torch", expect=1)
        if "needs PyTorch to run" not in refusal:
            sys.exit(f"expected PyTorch to be asked for by name, got: {refusal}")
    figures = {
        "site_packages_mb": round(installed_mb),
        "limit_mb": limit_mb,
        "install_s": round(install_s, 1),
        "harmonize_s": round(harmonize_s, 1),
        "engine": f"{engine['name']} {engine['version']}, {engine['precision']}",
    }
    print(json.dumps(figures))
    if installed_mb > limit_mb:
        sys.exit(f"the core has grown to {installed_mb:.0f} MB, the limit is {limit_mb:g}")


if __name__ == "__main__":
    main()
