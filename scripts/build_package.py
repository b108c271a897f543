"""Builds sdist and wheel twice, compares them byte by byte, and checks what an index will show.

    python scripts/build_package.py --out dist

Run by `make wheel-test`. The time in both archives is that of the last commit, or SOURCE_DATE_EPOCH
where that is set, so that anyone can build the same bytes from the same commit with the same
version of the build tool. Prints names, sizes and SHA-256 as JSON; any difference ends it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_MB = 20
"""An index takes 100 MB; the package is bundled models, 12 MB."""


def epoch() -> str:
    """Seconds since 1970 of the last commit, or as the environment has them."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    words = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        sys.exit("no commit to take the time from; set SOURCE_DATE_EPOCH")
    return done.stdout.strip()


def build(folder: Path, seconds: str) -> dict[str, Path]:
    """An sdist of the repository, and a wheel of that sdist, by their names."""
    words = [sys.executable, "-m", "build", "--outdir", str(folder), str(REPOSITORY)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": seconds}
    done = subprocess.run(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout)
    return {path.name: path for path in sorted(folder.iterdir())}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differing(first: dict[str, Path], second: dict[str, Path]) -> list[str]:
    """Names of files that only one build has, or whose bytes differ."""
    return sorted(
        name
        for name in first.keys() | second.keys()
        if name not in first or name not in second or sha256(first[name]) != sha256(second[name])
    )


def main() -> None:
    """Build twice, compare, check, keep the second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist")
    out: Path = parser.parse_args().out
    seconds = epoch()
    with tempfile.TemporaryDirectory() as folder:
        first = build(Path(folder) / "first", seconds)
        second = build(Path(folder) / "second", seconds)
        if different := differing(first, second):
            sys.exit(f"two builds of one commit differ: {', '.join(different)}")
        words = [sys.executable, "-m", "twine", "check", "--strict", *map(str, second.values())]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"an index would not show this README:\n{done.stdout}{done.stderr}")
        large = [name for name, path in second.items() if path.stat().st_size > LIMIT_MB * 1e6]
        if large:
            sys.exit(f"more than {LIMIT_MB} MB: {', '.join(large)}")
        out.mkdir(parents=True, exist_ok=True)
        for old in (*out.glob("cvsct-*.whl"), *out.glob("cvsct-*.tar.gz")):
            old.unlink()
        for name, path in second.items():
            shutil.copyfile(path, out / name)
    told = {
        name: {"mb": round((out / name).stat().st_size / 1e6, 1), "sha256": sha256(out / name)}
        for name in second
    }
    print(json.dumps({"source_date_epoch": int(seconds), **told}))


if __name__ == "__main__":
    main()
