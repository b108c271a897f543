"""Files of profiles: read back whole, refused where anything is wrong, nothing ever executed."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from cvsct.core.errors import ProfileError
from cvsct.profile import file as profile_file
from cvsct.profile.file import read_profile, write_profile
from tests.support.profiles import profile_of


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "site.profile"
    write_profile(profile_of(0, 8).shareable(), path)
    return path


def signed(about: str, arrays: dict[str, np.ndarray], version: int = 1) -> bytes:
    """A file with a right hash over whatever it holds, as a hostile writer makes it."""
    digest = profile_file._digest(about, arrays)
    header = json.dumps({"format": version, "about": about, "sha256": digest})
    return save(arrays, metadata={"cvsct_profile": header})


def parts(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])["__metadata__"]["cvsct_profile"]
    return json.loads(header)["about"], load(content)


def refused(content: bytes, folder: Path) -> str:
    path = folder / "bad.profile"
    path.write_bytes(content)
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_profile_comes_back_as_it_was_written(written: Path) -> None:
    before, after = profile_of(0, 8).shareable(), read_profile(written)
    for name, part in before.moments().items():
        np.testing.assert_array_equal(after.moments()[name].sums, part.sums)
        np.testing.assert_array_equal(after.moments()[name].patients, part.patients)
    assert after.groups == before.groups
    assert (after.pixel_mm, after.n_patients) == (before.pixel_mm, before.n_patients)
    assert len(after.sha256) == 64


def test_the_same_scans_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_profile(profile_of(0, 8).shareable(), tmp_path / "again.profile")
    assert (tmp_path / "again.profile").read_bytes() == written.read_bytes()


def test_nothing_in_the_file_tells_of_a_patient_or_a_series(written: Path) -> None:
    content = written.read_bytes()
    for secret in (b"patient 0", b"1.2.0", b"2026", b"frame"):
        assert secret not in content


def test_a_few_megabytes(written: Path) -> None:
    assert written.stat().st_size < 4e6


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(written: Path, tmp_path: Path, share: float) -> None:
    content = written.read_bytes()
    refused(content[: int(share * len(content))], tmp_path)


def test_a_changed_byte_is_found(written: Path, tmp_path: Path) -> None:
    content = bytearray(written.read_bytes())
    content[len(content) // 2] ^= 1
    assert "hash" in refused(bytes(content), tmp_path)


def test_random_damage_never_ends_in_another_error(written: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    content = written.read_bytes()
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(0, rng.choice([64, 3000, len(content)]), 4):
            damaged[place] = rng.integers(256)
        if bytes(damaged) != content:
            path = tmp_path / "bad.profile"
            path.write_bytes(damaged)
            with pytest.raises(ProfileError):
                read_profile(path)


def test_another_version_says_what_to_do(written: Path, tmp_path: Path) -> None:
    about, arrays = parts(written)
    assert "format 7, this version reads 1" in refused(signed(about, arrays, 7), tmp_path)


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    refused(pickle.dumps(Bomb()), tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_header_longer_than_allowed_is_not_read(tmp_path: Path) -> None:
    refused(struct.pack("<Q", 2**62) + b"{}", tmp_path)
    refused(struct.pack("<Q", 40) + b"[" * 40, tmp_path)


def test_a_file_larger_than_any_profile_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.profile"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(ProfileError, match="no profile has more"):
        read_profile(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_links_and_pipes_are_refused(written: Path, tmp_path: Path) -> None:
    link, pipe = tmp_path / "link.profile", tmp_path / "pipe.profile"
    link.symlink_to(written)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path, tmp_path / "nowhere.profile"):
        with pytest.raises(ProfileError):
            read_profile(path)


def change(name: str, how: Callable[[np.ndarray], np.ndarray]) -> Callable[..., bytes]:
    def changed(about: str, arrays: dict[str, np.ndarray]) -> bytes:
        return signed(about, {**arrays, name: how(arrays[name].copy())})

    return changed


def scaled(term: int, factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """Sums as if a covariate had other units: its products are consistent."""

    def put(sums: np.ndarray) -> np.ndarray:
        terms = int((np.sqrt(8 * sums.shape[-1] + 1) - 1) / 2)
        factors = np.ones(terms)
        factors[term] = factor
        down, across = np.triu_indices(terms)
        return sums * (factors[down] * factors[across])

    return put


def first_cell(sums: np.ndarray) -> tuple[int, int]:
    return tuple(np.argwhere(sums[:, :, 0] > 0)[0])


def with_value(term: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def put(sums: np.ndarray) -> np.ndarray:
        sums[(*first_cell(sums), term)] = value
        return sums

    return put


HOSTILE = {
    "not finite": change("body.sums", with_value(0, np.nan)),
    "infinite": change("body.sums", with_value(5, np.inf)),
    "a negative count": change("body.sums", with_value(0, -40.0)),
    "a broken count": change("body.sums", with_value(0, 40.5)),
    "a negative square": change("body.sums", with_value(-1, -1.0)),
    "no possible product": change("body.sums", with_value(1, 1e9)),
    "other shape": change("body.sums", lambda sums: sums[:, :, :-1]),
    "other type": change("body.sums", lambda sums: sums.astype(np.float32)),
    "patients without patches": change("body.patients", lambda n: n + 1),
    "patients as fractions": change("body.patients", lambda n: n.astype(np.float64)),
    "many frequencies": change("body.sums", lambda sums: np.zeros((sums.shape[0], 300, 1))),
    "covariates beyond any scan": change("body.sums", scaled(1, 1e70)),
    "power beyond any scan": change("by_ratio.sums", scaled(-1, 1e3)),
    "many patches": change("body.sums", lambda sums: sums * 1e12),
    "no share of tissue": change("guard_tissue.sums", scaled(-1, -5.0)),
    "pixels the wrong way round": lambda about, arrays: signed(
        about.replace("[0.7,0.7]", "[5.0,0.1]"), arrays
    ),
    "more patients than there are": lambda about, arrays: signed(
        about.replace('"n_patients":8,"pixel', '"n_patients":2,"pixel'), arrays
    ),
    "an array missing": lambda about, arrays: signed(
        about, {name: a for name, a in arrays.items() if name != "load.sums"}
    ),
    "an array too many": lambda about, arrays: signed(about, {**arrays, "x": np.zeros(3)}),
    "no header": lambda about, arrays: save(arrays),
    "a header that is no JSON": lambda about, arrays: signed("{", arrays),
    "an unknown key": lambda about, arrays: signed(about.replace("{", '{"x":1,', 1), arrays),
    "endless text": lambda about, arrays: signed(
        about.replace('"K1"', f'"{"K" * 10_000}"'), arrays
    ),
    "no such length": lambda about, arrays: signed(about.replace("[0.7", "[-0.7", 1), arrays),
    "deep nesting": lambda about, arrays: signed("[" * 100_000, arrays),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_with_a_right_hash_is_refused(
    name: str, written: Path, tmp_path: Path
) -> None:
    refused(HOSTILE[name](*parts(written)), tmp_path)


def test_a_card_that_hides_few_patients_is_corrected(tmp_path: Path) -> None:
    path = tmp_path / "few.profile"
    write_profile(profile_of(0, 2).shareable(few_patients=True), path)
    about, arrays = parts(path)
    path.write_bytes(signed(about.replace('"few_patients":true', '"few_patients":false'), arrays))
    assert read_profile(path).few_patients


def test_control_characters_of_names_are_not_printed(written: Path, tmp_path: Path) -> None:
    about, arrays = parts(written)
    path = tmp_path / "odd.profile"
    path.write_bytes(signed(about.replace('"K1"', r'"K\u001b[31m1"'), arrays))
    assert "\x1b" not in read_profile(path).scanner
