"""What of a training by scripts/gpu_run.sh is carried home: files of at most 16 MiB."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cvsct.io.scans import open_scans
from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE, Bundle
from cvsct.models.generator import GeneratorConfig, build_generator
from cvsct.training.record import LOG
from cvsct.volume import HUWindow
from loss_curves import draw, read

LIMIT_BYTES = 16 * 2**20
STAYS = {CHECKPOINT_FILE, "best.pt", "kept", "cache", "tensorboard", LOG}
"""What is no part of a model, or comes in a file of its own."""


@dataclass(frozen=True)
class Result:
    """A training that has ended or was stopped.

    Args:
        folder: the model folder.
        said: the log of its commands.
        state: `finished`, `stopped` or `failed`.
        why: of a failure.
    """

    name: str
    folder: Path
    said: Path
    state: str
    why: str = ""


def bring(result: Result, out: Path, source: Path, device: torch.device) -> dict[str, Any]:
    """Write a training's files, `NAME.*`, without those that are too large.

    Args:
        source: scans of domain A, on one of whose slices bf16 is compared with fp32.

    Returns:
        What `NAME.json` says.
    """
    folder, name = result.folder, result.name
    about: dict[str, Any] = {"model": name, "state": result.state}
    about |= {"why": result.why} if result.why else {}
    about |= _weights(folder, out / f"{name}.safetensors", source, device)
    if result.state == "finished":
        with tarfile.open(out / f"{name}.tar.gz", "w:gz") as archive:
            for path in sorted(folder.iterdir()):
                if path.name not in STAYS:
                    archive.add(path, f"{name}/{path.name}")
    elif (folder / CHECKPOINT_FILE).exists():
        shutil.copyfile(folder / CHECKPOINT_FILE, out / f"{name}.checkpoint.pt")
    if (folder / LOG).exists():
        lines = (folder / LOG).read_bytes()
        (out / f"{name}.{LOG}.gz").write_bytes(gzip.compress(lines))
        if lines and importlib.util.find_spec("matplotlib"):
            draw(*read(folder), out / f"{name}.png")
    shutil.copyfile(result.said, out / f"{name}.log")
    about["notes"] = _without_large(out, name)
    (out / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n")
    return about


def take_up(name: str, folder: Path, earlier: Path) -> bool:
    """Put a checkpoint that came back into a model folder that has none; whether there was one."""
    saved, log = earlier / f"{name}.checkpoint.pt", earlier / f"{name}.{LOG}.gz"
    if not saved.is_file() or (folder / CHECKPOINT_FILE).exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    if log.is_file():
        (folder / LOG).write_bytes(gzip.decompress(log.read_bytes()))
    shutil.copyfile(saved, folder / CHECKPOINT_FILE)
    return True


def _without_large(out: Path, name: str) -> list[str]:
    """Remove what is above the limit; what is to be said of it."""
    notes = []
    for path in sorted(out.glob(f"{name}.*")):
        size = path.stat().st_size
        if size <= LIMIT_BYTES:
            continue
        path.unlink()
        note = f"{path.name} has {size / 2**20:.0f} MiB, above 16: it does not come back"
        if path.suffix == ".pt":
            note += (
                "; the training goes on only on this machine while it is held, on another it "
                "begins anew"
            )
        notes.append(note)
    return notes


def _weights(folder: Path, path: Path, source: Path, device: torch.device) -> dict[str, Any]:
    """Write a network's weights as they would be used now, fp32; what is known of them."""
    if (folder / SUMS_FILE).exists():
        bundle = Bundle.read(folder)
        settings, training = bundle.settings, bundle.training
        weights = {name: torch.from_numpy(array) for name, array in bundle.weights.items()}
    elif (folder / CHECKPOINT_FILE).exists():
        saved = torch.load(folder / CHECKPOINT_FILE, map_location="cpu", weights_only=True)
        settings, best = json.loads(saved["config"]), saved["best"]
        weights = best["weights"] if best else saved["step"]["averaged"]
        training = {
            "steps": saved["steps"],
            "minutes": round(saved["minutes"], 2),
            "kept_step": best["step"] if best else saved["steps"],
        }
    else:
        return {}
    if "generator" not in settings:  # a classical method
        return {"training": training}
    save_file({name: value.float().contiguous() for name, value in weights.items()}, path)
    path.chmod(0o644)
    return {"training": training, "bf16_error_hu": _bf16_error(weights, settings, source, device)}


def _bf16_error(
    weights: dict[str, Tensor], settings: dict[str, Any], source: Path, device: torch.device
) -> dict[str, float]:
    """How far bf16 inference is from fp32, in HU; trained weights show it, random ones hide it."""
    window = HUWindow(*settings["window_hu"])
    hu = next(iter(open_scans(source))).hu
    image = torch.from_numpy(window.to_unit(hu[len(hu) // 2]))[None, None].float().to(device)
    network = build_generator(GeneratorConfig.model_validate(settings["generator"]))
    network.load_state_dict(
        {
            name.removeprefix("a2b."): value
            for name, value in weights.items()
            if name.startswith("a2b.")
        }
    )
    network.to(device, memory_format=torch.channels_last)
    with torch.inference_mode():
        exact = network(image)
        with torch.autocast(device.type, torch.bfloat16):
            rounded = network(image).float()
    error = (exact - rounded).abs().flatten() * (window.high_hu - window.low_hu) / 2
    worst = {"mean": error.mean(), "p99": torch.quantile(error, 0.99), "max": error.max()}
    return {name: round(float(value), 3) for name, value in worst.items()}
