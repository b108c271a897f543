"""The core where POSIX is missing, and rules of the source that keep it so."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.uid import JPEGLSLossless

from tests.conftest import PACKAGE
from tests.faults.models import write_model
from tests.support.compressed_files import write_compressed
from tests.support.dicom_files import write_series

REPOSITORY = PACKAGE.parent
HIDDEN = REPOSITORY / "tests" / "support" / "posix_hidden"

EXTRAS = {
    "torch", "onnx", "numba", "xraydb", "radiomics", "skimage", "pandas", "matplotlib", "jinja2",
    "highdicom", "dask", "distributed", "tensorboard", "h5py", "SimpleITK",
}  # fmt: skip

_IMPORT_ALL = f"""
import importlib, json, pkgutil, sys
class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRAS)!r}:
            raise ModuleNotFoundError(name, name=name.partition(".")[0])
sys.meta_path.insert(0, Missing)
import cvsct
loaded, left_out = [], {{}}
for module in pkgutil.walk_packages(cvsct.__path__, "cvsct."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
        loaded.append(module.name)
    except ImportError as error:
        left_out[module.name] = error.name or str(error)
print(json.dumps([loaded, left_out]))
"""

_HARMONIZE = """
import sys
from pathlib import Path
import cvsct

if __name__ == "__main__":
    from cvsct.io.dicom import codec_process
    from cvsct.io.read import read_all

    one, several, compressed, model, out = map(Path, sys.argv[1:])
    assert read_all(compressed)[0].hu.shape[0] == 1
    codec_process.close()
    volume = cvsct.read_series(one)
    harmonized = cvsct.load_model(model).harmonize(volume)
    assert harmonized.volume.hu.shape == volume.hu.shape
    assert len(cvsct.write_derived(harmonized, out / "memory").files) == len(volume.hu)
    cvsct.harmonize(one, out / "one", model=model)
    cvsct.harmonize(several, out / "cohort", model=model, workers=1, timestamp="now")
    cvsct.harmonize(several, out / "cohort", model=model, workers=1, timestamp="now")
    assert "fcntl" not in sys.modules or sys.modules["fcntl"] is None
"""


def _without_posix(*words: object) -> subprocess.CompletedProcess[str]:
    paths = [str(HIDDEN), str(PACKAGE), str(REPOSITORY)]
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_hidden_is_hidden() -> None:
    look = "import os, signal, sys; print(hasattr(os, 'fork'), hasattr(signal, 'SIGKILL'))"
    assert _without_posix("-c", look).stdout == "False False\n"
    assert "halted; None in sys.modules" in _without_posix("-c", "import fcntl").stderr


def test_every_module_of_the_core_imports_without_posix() -> None:
    done = _without_posix("-c", _IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    loaded, left_out = json.loads(done.stdout.splitlines()[-1])
    assert set(left_out.values()) <= EXTRAS, left_out
    assert {"cvsct.core.resumable", "cvsct.inference.cohort.run", "cvsct.cli.harmonize"} <= {
        *loaded
    }
    packages = {name.split(".")[1] for name in left_out}
    assert not packages & {"core", "io", "model", "cli", "guard"}, left_out


def test_series_and_cohorts_are_harmonized_without_posix(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for name in ("A", "B"):
        write_series(tmp_path / "several" / name, 3, series=f"1.2.9.{ord(name)}")
    script = tmp_path / "script.py"
    script.write_text(_HARMONIZE, encoding="utf-8")
    out = tmp_path / "out"
    compressed = write_compressed(tmp_path / "a.dcm", JPEGLSLossless)
    several = tmp_path / "several"
    done = _without_posix(script, several / "A", several, compressed, model, out)
    assert done.returncode == 0, done.stderr
    figures = json.loads((out / "cohort" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert figures["n_slices"] == 6
    assert len(list(out.rglob("*.dcm"))) == 3 + 3 + 6


POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "select"}
POSIX_NAMES = {
    *("os.fork", "os.register_at_fork", "os.sched_getaffinity", "os.fchmod", "os.umask"),
    *("os.getuid", "os.geteuid", "os.setsid", "os.killpg", "os.kill", "os.link", "os.symlink"),
    *("os.sysconf", "os.uname", "os.statvfs", "os.posix_fadvise", "os.O_DIRECTORY"),
    *("os.O_NOFOLLOW", "os.O_NONBLOCK", "os.getloadavg", "os.rename", "os.replace"),
    *("signal.alarm", "signal.pthread_sigmask", "signal.setitimer", "signal.SIGKILL"),
    *("signal.SIGALRM", "signal.SIGHUP", "signal.SIGUSR1", "socket.socketpair", "socket.AF_UNIX"),
    *("multiprocessing.Process", "multiprocessing.Pool", "multiprocessing.set_start_method"),
}
"""Asked for in `core/platform.py` alone; processes come of a `spawn` context."""


def _posix_in(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name in POSIX_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in POSIX_NAMES:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("get_context"):
            found += [] if [ast.unparse(word) for word in node.args] == ["'spawn'"] else ["fork"]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "ProcessPoolExecutor":
            spawned = {word.arg for word in node.keywords}
            found += [] if "mp_context" in spawned else ["ProcessPoolExecutor"]
    return found


def test_only_the_platform_module_asks_for_what_some_systems_lack() -> None:
    assert _posix_in("import fcntl\nos.fork()\nget_context('fork')") == ["fcntl", "fork", "os.fork"]
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if path.name != "platform.py" and (names := _posix_in(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def _unsettled_text_files(source: str) -> list[str]:
    """Calls that leave a text file's encoding, or a written one's newline, to the system."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        given = {word.arg for word in node.keywords}
        text = [word.value for word in node.args if isinstance(word, ast.Constant)]
        mode = next(
            (word for word in text if isinstance(word, str) and set(word) <= {*"rwxab+t"}), "r"
        )
        writes = last == "write_text" or bool(set(mode) & {*"wxa+"})
        if last in {"read_text", "write_text"}:
            settled = "encoding" in given or (last == "read_text" and text == ["utf-8"])
        elif last == "open" and name not in {
            "os.open",
            "gzip.open",
            "Image.open",
            "webbrowser.open",
            "opener.open",  # of an address
        }:
            settled = "b" in mode or "encoding" in given
        else:
            continue
        if not settled or (writes and "b" not in mode and "newline" not in given):
            found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("folder", ["src", "scripts", "benchmarks"])
def test_text_files_have_an_encoding_and_newlines_of_their_own(folder: str) -> None:
    assert len(_unsettled_text_files("p.open()\np.read_text()\np.open('w', encoding='utf-8')")) == 3
    found = {
        str(path.relative_to(REPOSITORY)): calls
        for path in (REPOSITORY / folder).rglob("*.py")
        if (calls := _unsettled_text_files(path.read_text(encoding="utf-8")))
    }
    assert found == {}
