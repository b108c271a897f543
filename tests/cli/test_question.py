"""The question before a download: who is asked, what an answer does, and `--yes`."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvsct.api import train as api_train
from cvsct.training.vgg_files import PUBLISHED, WEIGHTS_VARIABLE
from tests.support.commands import TINY, TINY_CYCLE, Run
from tests.support.file_server import FileServer, serve
from tests.support.vgg_files import as_keras


@pytest.fixture(autouse=True)
def server(
    vgg_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    """A server with a small VGG16 in the place of Keras's file, and no weights on the machine."""
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    published = PUBLISHED["vgg16"]
    content = as_keras(vgg_weights, tmp_path / "published.h5").read_bytes()
    with serve(content) as state:
        own = type(published)(
            f"{state.address}/{published.name}",
            len(content),
            {"sha256": hashlib.sha256(content).hexdigest()},
            published.source,
            published.license,
        )
        monkeypatch.setitem(PUBLISHED, "vgg16", own)
        yield state


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """Where a downloaded file is put."""
    return tmp_path / "cache" / "cvsct" / "weights" / PUBLISHED["vgg16"].name


class Terminal(io.StringIO):
    """Somebody at a keyboard, who types this."""

    def isatty(self) -> bool:
        return True


def sit_at_a_terminal(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True, raising=False)


def words(scans: Path, out: Path, *more: object) -> list[object]:
    settings = [word for pair in (*TINY, *TINY_CYCLE) for word in ("--set", pair)]
    sides = ["--source", scans / "sharp", "--target", scans / "soft"]
    return ["train", "cvsct", *sides, "--out", out, "--max-steps", 1, *settings, *more]


def unreadable(*_: object, **__: object) -> None:
    raise AssertionError("scans were read")


@pytest.mark.parametrize("typed", ["n\n", "\n", "perhaps\n"])
def test_no_ends_before_scans_are_read(
    run: Run,
    scans: Path,
    tmp_path: Path,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
) -> None:
    sit_at_a_terminal(monkeypatch, typed)
    monkeypatch.setattr(api_train, "admit_scans", unreadable)
    code, printed, err = run(*words(scans, tmp_path / "out"))
    assert (code, printed) == (1, "")
    for words_of_the_question in ("CC BY 4.0", "Simonyan", server.address, "[y/N]"):
        assert words_of_the_question in err.partition("cvsct: error")[0]
    assert "--yes" in err.partition("cvsct: error")[2]
    assert server.requests == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["ctrl-d", "ctrl-c"])
def test_the_keys_that_end_a_program_end_it_with_one_line(
    run: Run,
    scans: Path,
    tmp_path: Path,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    sit_at_a_terminal(monkeypatch, "")
    if key == "ctrl-c":
        monkeypatch.setattr(sys.stdin, "readline", interrupted)
    code, _, err = run(*words(scans, tmp_path / "out"))
    assert code == 130
    assert err.splitlines()[-1].startswith("cvsct: error: stopped")
    assert server.requests == []


@pytest.mark.usefixtures("small_sample", "without_graphs")
def test_yes_downloads_trains_and_the_card_names_the_weights(
    run: Run,
    scans: Path,
    tmp_path: Path,
    server: FileServer,
    cached: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sit_at_a_terminal(monkeypatch, "y\n")
    out = tmp_path / "out"
    code, _, err = run(*words(scans, out))
    assert code == 0, err
    assert cached.read_bytes() == server.content
    card = (out / "card.md").read_text(encoding="utf-8")
    sha256 = hashlib.sha256(server.content).hexdigest()
    section = card.partition("## Weights of others")[2]
    for words_of_the_card in ("Simonyan", "CC BY 4.0", PUBLISHED["vgg16"].url, sha256):
        assert words_of_the_card in section


@pytest.mark.parametrize("option", ["--json", "--quiet", None])
def test_who_cannot_be_asked_is_told_of_yes(
    run: Run,
    scans: Path,
    tmp_path: Path,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    option: str | None,
) -> None:
    if option:
        sit_at_a_terminal(monkeypatch, "y\n")
    monkeypatch.setattr(api_train, "admit_scans", unreadable)
    code, _, err = run(*words(scans, tmp_path / "out", *([option] if option else [])))
    assert code == 1
    assert err.startswith("cvsct: error: the domain loss needs ImageNet VGG16 weights: give --yes")
    assert server.requests == []


def test_the_option_answers_before_it_is_asked_and_a_dry_run_downloads_nothing(
    run: Run, scans: Path, tmp_path: Path, server: FileServer, cached: Path
) -> None:
    code, _, err = run(*words(scans, tmp_path / "out", "--yes", "--dry-run"))
    assert code == 0, err
    assert "would be downloaded" in err
    assert server.requests == []
    code, _, err = run(
        *("benchmark", "--data", _data(scans, tmp_path), "--methods", "cvsct,input"),
        *("--out", tmp_path / "benchmark", "--rois", 6, "--workers", 1, "--dry-run"),
    )
    assert code == 1
    assert "--yes" in err
    assert not cached.exists()


def test_a_benchmark_is_told_of_missing_weights_before_any_work(
    run: Run, scans: Path, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sit_at_a_terminal(monkeypatch, "n\n")
    data, out = _data(scans, tmp_path), tmp_path / "benchmark"
    code, _, err = run("benchmark", "--data", data, "--methods", "input,cvsct", "--out", out)
    assert code == 1
    assert "[y/N]" in err
    assert not out.exists()
    assert server.requests == []


def _data(scans: Path, tmp_path: Path) -> Path:
    """A benchmark's folder of these scans."""
    data = tmp_path / "data"
    for part, root in (("train", scans), ("test", scans / "pair")):
        (data / part).mkdir(parents=True)
        for side in ("sharp", "soft"):
            (data / part / side).symlink_to(root / side, target_is_directory=True)
    return data
