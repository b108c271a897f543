"""The cache of features: same figures, found by content, and never in the way."""

from __future__ import annotations

import logging
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from cvsct.evaluation.features import cache as feature_cache
from cvsct.evaluation.features import radiomics
from cvsct.evaluation.features.cache import (
    FILE,
    FeatureCache,
    MeasuredFeatures,
    content_key,
    default_folder,
)
from cvsct.evaluation.features.radiomics import Patch, extract


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def patches(count: int = 4) -> list[Patch]:
    rng = np.random.default_rng(0)
    return [Patch(rng.normal(40, 60, (8, 8)).astype(np.float32)) for _ in range(count)]


def refuse_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(radiomics, "feature_values", fail)


def test_a_second_run_measures_nothing(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = [*patches(), Patch(np.full((8, 8), 40.0))]
    cold = extract(regions, cache=cache)
    assert np.array_equal(cold.values, extract(regions).values, equal_nan=True)
    refuse_to_measure(monkeypatch)
    warm = extract(regions[::-1], cache=cache)
    assert np.array_equal(warm.values[::-1], cold.values, equal_nan=True)
    assert {value.feature: value.reason for value in warm.missing} == {
        value.feature: value.reason for value in cold.missing
    }


def test_equal_regions_are_measured_once(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = radiomics.feature_values
    monkeypatch.setattr(
        radiomics, "feature_values", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    region = patches(1)[0]
    seen: list[tuple[int, int]] = []
    table = extract(
        [region] * 3, cache=cache, progress=lambda _, done, total: seen.append((done, total))
    )
    assert len(calls) == 1
    assert seen[-1] == (3, 3)
    assert np.array_equal(table.values[0], table.values[2])


def test_whatever_shapes_a_value_changes_its_key() -> None:
    hu, mask, mm = np.zeros((3, 4)), np.ones((3, 4), bool), (1.0, 1.0, 1.0)
    other_hu, other_mask = hu.copy(), mask.copy()
    other_hu[1, 1], other_mask[0, 0] = 1e-9, False
    keys = {
        content_key(hu, mask, mm, {"a": 1}),
        content_key(other_hu, mask, mm, {"a": 1}),
        content_key(hu, other_mask, mm, {"a": 1}),
        content_key(hu.T, mask.T, mm, {"a": 1}),
        content_key(hu, mask, (2.0, 1.0, 1.0), {"a": 1}),
        content_key(hu, mask, mm, {"a": 2}),
    }
    assert len(keys) == 6
    assert content_key(hu.astype(np.float32), mask, mm, {"a": 1}) in keys


def test_pixels_outside_the_mask_change_neither_key_nor_features() -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((12, 12)) < 0.7
    hu = rng.normal(40, 60, (12, 12))
    other = np.where(mask, hu, 3000.0)
    assert content_key(hu, mask, (1.0,) * 3, {}) == content_key(other, mask, (1.0,) * 3, {})
    tables = [extract([Patch(values, mask=mask)]).values for values in (hu, other)]
    assert np.array_equal(*tables)


def test_damaged_entries_are_measured_again(
    cache: FeatureCache, caplog: pytest.LogCaptureFixture
) -> None:
    regions = patches()
    cold = extract(regions, cache=cache)
    with sqlite3.connect(cache.folder / FILE) as connection:
        entry = connection.execute("SELECT entry FROM features LIMIT 1").fetchone()[0]
        flipped = bytes([entry[0] ^ 1]) + entry[1:]
        connection.execute("UPDATE features SET entry = ? WHERE rowid = 1", (flipped,))
        connection.execute("UPDATE features SET entry = 'text' WHERE rowid = 2")
        connection.execute("UPDATE features SET entry = x'00' WHERE rowid = 3")
    connection.close()
    assert np.array_equal(extract(regions, cache=cache).values, cold.values)
    assert caplog.text.count("damaged and measured again") == 3
    caplog.clear()
    assert np.array_equal(extract(regions, cache=cache).values, cold.values)
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_file_is_replaced(cache: FeatureCache, content: bytes) -> None:
    cache.folder.mkdir()
    (cache.folder / FILE).write_bytes(content)
    regions = patches()
    plain = extract(regions).values
    for _ in range(2):
        assert np.array_equal(extract(regions, cache=cache).values, plain)
    extract(regions, cache=cache)
    assert sqlite3_count(cache) == 4


def sqlite3_count(cache: FeatureCache) -> int:
    connection = sqlite3.connect(cache.folder / FILE)
    count = connection.execute("SELECT count(*) FROM features").fetchone()[0]
    connection.close()
    return int(count)


def test_a_folder_that_cannot_be_written_costs_the_cache_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = FeatureCache(tmp_path / "file" / "features")
    regions = patches(2)
    assert np.array_equal(extract(regions, cache=cache).values, extract(regions).values)
    assert "is not used" in caplog.text


def test_a_stopped_run_keeps_what_it_measured(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: str, done: int, __: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(patches(), cache=cache, progress=stop)
    assert sqlite3_count(cache) == 3


def test_the_oldest_entries_go_first(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "MAX_ENTRIES", 3)
    for i in range(5):
        cache.put({str(i): MeasuredFeatures(np.array([float(i)]))})
    assert sorted(cache.get([str(i) for i in range(5)], 1)) == ["2", "3", "4"]


def write_some(folder: Path, start: int) -> None:
    for i in range(start, start + 40):
        FeatureCache(folder).put({str(i): MeasuredFeatures(np.array([float(i)]), {})})


def test_several_processes_write_at_once(cache: FeatureCache) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_some, args=(cache.folder, 100 * i)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    keys = [str(100 * i + j) for i in range(3) for j in range(40)]
    cached = cache.get(keys, 1)
    assert {key: float(features.values[0]) for key, features in cached.items()} == {
        key: float(key) for key in keys
    }


def test_the_default_folder_is_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder() == Path.home() / ".cache" / "cvsct" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FeatureCache().folder == tmp_path / "cvsct" / "features"


def test_log_level_of_a_hit_is_silent(
    cache: FeatureCache, caplog: pytest.LogCaptureFixture
) -> None:
    extract(patches(2), cache=cache)
    with caplog.at_level(logging.DEBUG, logger="cvsct"):
        extract(patches(2), cache=cache)
    assert caplog.text == ""
