"""Manifest of an output folder: command, versions, settings, inputs and figures as JSON."""

from __future__ import annotations

import contextlib
import logging
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvsct import __version__
from cvsct.core.files import config_hash, write_json

MANIFEST = "manifest.json"
logger = logging.getLogger(__name__)

_LIBRARIES = ("numpy", "scipy", "pydicom", "numba", "torch", "openvino", "radiomics", "skimage")


@dataclass
class Manifest:
    """How an output folder was made, in enough detail to repeat the run and to compare runs.

    Args:
        command: the cvsct command that ran.
        config: every setting that shapes the result.
        inputs: Series Instance UIDs by side, never patient attributes.
        figures: the measured results.
        timings_s: seconds of each step, by name.
        model_sha256: SHA-256 of the model that was used or made; empty where there is none.
        local: patterns of files beside the manifest that may identify a patient; only the user
            can read them. The manifest and all other files may be shared.
        started: time of the start, in seconds since 1970.
    """

    command: str
    config: dict[str, Any]
    inputs: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    model_sha256: str = ""
    local: Sequence[str] = ()
    started: float = field(default_factory=time.time)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the block's wall time to `timings_s[name]`."""
        start = time.perf_counter()
        logger.info("%s: %s", self.command, name)
        yield
        seconds = time.perf_counter() - start
        logger.info("%s: %s took %.2f s", self.command, name, seconds)
        self.timings_s[name] = self.timings_s.get(name, 0.0) + seconds

    def write(self, folder: Path, name: str = MANIFEST) -> None:
        """Write the manifest into a folder, as `manifest.json` or under the name of a shard."""
        write_json(
            folder / name,
            {
                "cvsct": __version__,
                "command": self.command,
                "research_use_only": True,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
                "versions": _versions(),
                "config": self.config,
                "config_sha256": config_hash(self.config),
                "model_sha256": self.model_sha256,
                "inputs": self.inputs,
                "figures": self.figures,
                **({"may_identify_patients": list(self.local)} if self.local else {}),
                "timings_s": {name: round(value, 3) for name, value in self.timings_s.items()},
            },
        )


def _versions() -> dict[str, str]:
    """Versions of Python and of the libraries this run has loaded."""
    loaded = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        if module is not None:
            loaded[name] = str(getattr(module, "__version__", "unknown"))
    return loaded
