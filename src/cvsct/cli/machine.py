"""What `cvsct doctor` says of the machine: cores, memory, disk, and what networks run on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cvsct.cli.console import Finding

MEMINFO = Path("/proc/meminfo")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


def findings() -> Iterator[Finding]:
    """Everything about the machine."""
    from cvsct.core.platform import cores

    yield Finding("CPU cores", f"{cores()} usable of {os.cpu_count() or 'unknown'}")
    yield Finding("memory", memory())
    yield Finding("disk", f"{_gb(shutil.disk_usage(Path.cwd()).free)} free in this folder")
    yield Finding("decoder", decoder())
    yield Finding("torch", torch())
    yield Finding("OpenVINO", openvino())


def memory(meminfo: Path = MEMINFO, limit: Path = MEMORY_LIMIT) -> str:
    """What there is and what is free; in a container with its limit."""
    try:
        held = dict(
            line.split(":", 1)
            for line in meminfo.read_text(encoding="utf-8").splitlines()
            if ":" in line
        )
        total, free = (int(held[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        return "unknown"
    said = f"{_gb(total)}, {_gb(free)} available"
    try:
        return f"{said}; limited to {_gb(int(limit.read_text(encoding='utf-8')))}"
    except (OSError, ValueError):
        return said  # no container, or one without a limit ("max")


def decoder() -> str:
    """How far the process that decodes compressed DICOM is confined on this system."""
    from cvsct.core.platform import can_limit_memory
    from cvsct.io.dicom.codec_process import MEMORY_BYTES

    if can_limit_memory():
        return f"a process of its own, with time limits and at most {_gb(MEMORY_BYTES)}"
    return (
        "a process of its own, with time limits but no memory limit: this system has none, so "
        "decode compressed files of unknown origin elsewhere"
    )


def torch() -> str:
    """The device that trainings and the torch engine use, and whether it computes in bf16."""
    try:
        import torch

        from cvsct.training.cyclegan.step import bf16_is_fast

        cuda = torch.cuda.is_available()
        device = torch.device("cuda" if cuda else "cpu")
        name = torch.cuda.get_device_name(device) if cuda else "cpu, no CUDA GPU"
        fast = "in hardware" if bf16_is_fast(device) else "only emulated, so fp32 is used"
        return f"{torch.__version__} on {name}; bf16 {fast}"
    except ImportError as error:
        return f"not there ({error}); pip install 'cvsct[train]'"
    except (RuntimeError, OSError) as error:
        return f"does not work: {' '.join(str(error).split())}"


def openvino() -> str:
    """The version, and what it can run on."""
    try:
        import openvino

        return f"{openvino.__version__} on {', '.join(openvino.Core().available_devices)}"
    except (ImportError, RuntimeError, OSError) as error:
        return f"does not work: {' '.join(str(error).split())}"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
