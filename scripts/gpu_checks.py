"""What scripts/gpu_run.sh needs before it begins. The standard library alone is imported here."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

NEEDED = (
    *("numpy", "scipy", "pydicom", "pydantic", "typer", "rich", "jaxtyping", "safetensors"),
    "torch",
)
TO_SIMULATE = ("numba", "xraydb")
SLOW = {"torch", "numba"}
"""Looked for and not imported: that takes seconds, and what is to be refused is told at once."""

USEFUL = {
    "matplotlib": "loss curves",
    "onnx": "ONNX graphs",
    "openvino": "ONNX graphs",
    "tensorboard": "TensorBoard",
}
"""Without these all runs, without that."""


def stop(message: str, code: int = 1) -> NoReturn:
    """End with a message."""
    print(f"gpu_run: {message}", file=sys.stderr)
    sys.exit(code)


def say(message: str) -> None:
    """Tell how it goes."""
    print(f"gpu_run: {message}", flush=True)


def install(wheels: Path, site: Path) -> None:
    """Unpack every wheel of a folder beside the environment, which stays as it is."""
    found = sorted(map(str, wheels.glob("*.whl")))
    if not found:
        stop(f"{wheels}: no wheels (*.whl) in there")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    words += ["--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--upgrade"]
    if subprocess.run([*words, "--target", str(site), *found], check=False).returncode:
        stop(f"pip could not install the wheels in {wheels}, see above")


def check_packages(wheels: Path | None, site: Path, simulates: bool) -> None:
    """See that all libraries are there, from the wheel folder where needed."""
    needed = [*NEEDED, *(TO_SIMULATE if simulates else ())]
    use_site(site)
    if wheels and (missing(needed) or absent(USEFUL)):
        install(wheels, site)
        use_site(site)
    if lacking := missing(needed):
        stop(
            "this Python lacks "
            + "; ".join(f"{name} ({why})" for name, why in lacking.items())
            + ". Where there is a network, fetch them and what they need with pip download into a "
            "folder, and give it with --wheels"
            + ("; with --source and --target nothing is simulated" if simulates else "")
        )
    for name in absent(USEFUL):
        say(f"{name} is not installed: no {USEFUL[name]}")


def missing(names: Iterable[str]) -> dict[str, str]:
    """Those that cannot be imported, and why."""
    found = dict.fromkeys(absent(names), "not installed")
    for name in set(names) - found.keys() - SLOW:
        try:
            importlib.import_module(name)
        except ImportError as error:
            found[name] = str(error)
    return found


def absent(names: Iterable[str]) -> list[str]:
    """Those that are not installed; nothing is imported."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def use_site(site: Path) -> None:
    """Let this process and its children import what was unpacked there."""
    if site.is_dir() and str(site) not in sys.path:
        sys.path.insert(0, str(site))
        os.environ["PYTHONPATH"] = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    importlib.invalidate_caches()


def check_device(device: str) -> None:
    """See that there is a GPU, or hide it from a run on the CPU."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        stop(
            f"torch {torch.__version__} sees no CUDA GPU; run it on a machine with one, or with "
            "--device cpu"
        )


def check_weights(given: Path | None, methods: Iterable[str]) -> None:
    """See that the VGG weights are there before anything long begins."""
    from cvsct.errors import TrainingError  # noqa: PLC0415
    from cvsct.methods import METHODS  # noqa: PLC0415
    from cvsct.training.vgg import WEIGHTS_VARIABLE, find_weights  # noqa: PLC0415

    if given:
        os.environ[WEIGHTS_VARIABLE] = str(given.resolve())
    if any(METHODS[name].settings.get("domain_loss") for name in methods):
        try:
            find_weights("")
        except TrainingError as error:
            stop(f"{error} (here: --weights FILE)")
