"""The core alone: its wheel in an empty environment, what is in it, its size, and two runs in it.

    python scripts/core_install.py [--wheel FILE] [--python PROGRAM]

Run by `make wheel-test` with the development environment, which has PyTorch to export a tiny
model with and the simulator for a scan; the new environment, of this or another Python, must do
without. There the network and a bundled model harmonize a series each, by command and from Python.
Prints figures as JSON; any failure ends it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_MB = 550
"""The design measured 534 MB; more than this is a dependency that does not belong in the core."""

NOT_CORE = ("torch", "onnx", "numba", "pandas", "matplotlib", "skimage", "highdicom")

DATA = {".css": 1, ".csv": 2, ".j2": 2, ".js": 1, ".json": 4, ".onnx": 4, ".toml": 2}
"""Files of the package beside Python's, at least so many of each suffix."""
BUNDLED = "ge-lung-siemens-bl64-spectrum"
COARSE = ("--guard", "pixel_factor=5")
"""The smallest simulated scan has pixels four times those that the model learned from."""
FROM_PYTHON = """
import sys, cvsct
model = cvsct.load_model(sys.argv[2])
mapped = model.harmonize(cvsct.read_series(sys.argv[1]), guard=["pixel_factor=5"])
print(mapped.volume.hu.shape, cvsct.__version__)
"""


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
    """A tiny network with graphs as a model folder, a series of four slices, simulated scans."""
    sys.path.insert(0, str(REPOSITORY))
    import cvsct  # noqa: PLC0415
    from cvsct.networks.export import with_graphs  # noqa: PLC0415
    from tests.networks.test_export import trained  # noqa: PLC0415
    from tests.support.dicom_files import write_series  # noqa: PLC0415

    with_graphs(trained({"width": 4, "reduction": 2})).write(folder / "model")
    write_series(folder / "series", 4)
    cvsct.simulate(folder / "scans", scale="tiny", parts=["test"], workers=1)


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the repository."""
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder)
    run(*build, REPOSITORY)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_wheel(wheel: Path) -> None:
    """End this script where the wheel lacks a file of the package, or holds one too many."""
    packed = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    files = [path for path in (REPOSITORY / "src").rglob("*") if path.is_file()]
    wanted = {
        path.relative_to(REPOSITORY / "src") for path in files if "__pycache__" not in path.parts
    }
    if missing := sorted(map(str, wanted - packed)):
        sys.exit(f"the wheel lacks {', '.join(missing)}")
    if strangers := sorted(str(path) for path in packed if path.parts[0].startswith("test")):
        sys.exit(f"the wheel holds {', '.join(strangers)}")
    for suffix, least in DATA.items():
        if sum(path.suffix == suffix for path in packed & wanted) < least:
            sys.exit(f"the wheel holds fewer than {least} files *{suffix}")
    if Path("cvsct/py.typed") not in packed:
        sys.exit("the wheel lacks py.typed, without which its types are not seen")


def size_mb(folder: Path) -> float:
    """All files below a folder, compiled Python left out: it depends on what has run."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return sum(file.lstat().st_size for file in files) / 1e6


def main() -> None:
    """Install, measure, harmonise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB)
    parser.add_argument("--wheel", type=Path, help="a wheel of this commit; built where missing")
    parser.add_argument("--python", default=sys.executable, help="the Python to install it in")
    arguments = parser.parse_args()
    limit_mb = arguments.limit_mb
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        wheel = arguments.wheel or build_wheel(folder / "wheel")
        check_wheel(wheel)
        begun = time.perf_counter()
        run(arguments.python, "-m", "venv", folder / "venv")
        scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python = scripts / "python"
        (site,) = json.loads(
            run(python, "-c", "import json, site; print(json.dumps(site.getsitepackages()[:1]))")
        )
        version = run(python, "-c", "import platform; print(platform.python_version())").strip()
        empty_mb = size_mb(Path(site))
        run(python, "-m", "pip", "install", "--quiet", "--no-compile", wheel)
        install_s = time.perf_counter() - begun
        wheel_mb = wheel.stat().st_size / 1e6
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
        begun = time.perf_counter()
        simulated = (folder / "scans" / "test" / "ge-revolution-evo", "--model", BUNDLED, *COARSE)
        said = run(scripts / "cvsct", "harmonize", *simulated, "--out", folder / "simulated")
        simulated_s = time.perf_counter() - begun
        if not list((folder / "simulated").rglob("*.dcm")):
            sys.exit(f"no derived image of the simulated scan\n{said}")
        script = (python, "-c", FROM_PYTHON, simulated[0], BUNDLED)
        if not (said := run(*script)).startswith("("):
            sys.exit(f"no volume from Python: {said}")
        refusal = run(*use, "--out", folder / "other", "--engine", "torch", expect=1)
        if "needs PyTorch to run" not in refusal:
            sys.exit(f"expected PyTorch to be asked for by name, got: {refusal}")
    figures = {
        "site_packages_mb": round(installed_mb),
        "limit_mb": limit_mb,
        "install_s": round(install_s, 1),
        "harmonize_s": round(harmonize_s, 1),
        "simulated_s": round(simulated_s, 1),
        "wheel_mb": round(wheel_mb, 1),
        "python": version,
        "engine": f"{engine['name']} {engine['version']}, {engine['precision']}",
    }
    print(json.dumps(figures))
    if installed_mb > limit_mb:
        sys.exit(f"the core has grown to {installed_mb:.0f} MB, the limit is {limit_mb:g}")


if __name__ == "__main__":
    main()
