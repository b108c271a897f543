"""Four workers killed while they write, and one poison, in two hundred series.

`python -m tests.faults.workers`: all but the poison are done, the bytes are those of an undisturbed
run, and the poison was tried three times.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from cvsct.core.dask_workers import DaskWorkers
from cvsct.core.workers import Processes
from cvsct.inference.cohort.job import SeriesHarmonizer
from cvsct.inference.cohort.run import open_journal, run_jobs, verify
from cvsct.inference.cohort.shards import Shard, by_key
from cvsct.inference.cohort.summary import CohortSummary, summarize
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.read import find_series
from cvsct.model.bundle import Bundle
from tests.faults.finding import Finding, script
from tests.faults.models import write_model
from tests.support.faulty_cohort import content, work, write_tree
from tests.support.streaming import harmonize_each

KILLS = 4


def undisturbed(model: Path, tree: Path, out: Path) -> dict[str, bytes]:
    """The bytes of a run without any cohort: series after series in this process."""
    bundle = Bundle.read(model)
    harmonizer = SeriesHarmonizer(model, bundle.sha256)
    loaded = harmonizer.load(bundle)
    derivation = harmonizer.derivation(loaded)
    outcomes = harmonize_each(find_series(tree), loaded.mapping, out, derivation)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    return content(out)


def tasks_of(tree: Path) -> dict[str, SeriesFiles]:
    """Series by their keys."""
    return by_key(find_series(tree), tree, Shard())


def go(
    tree: Path,
    out: Path,
    crew: Processes | DaskWorkers,  # type: ignore[type-arg]
    again: bool = False,
) -> CohortSummary:
    """A cohort from its journal's opening to its end."""
    out.mkdir(exist_ok=True)
    tasks = tasks_of(tree)
    with closing(crew), open_journal(out, Shard(), list(tasks), again) as journal:
        verify(journal, out)
        run_jobs(tasks, journal, crew, out)
        return summarize(journal, tasks)


def faults_seen(
    found: CohortSummary,
    out: Path,
    seen: Path,
    whole: dict[str, bytes],
    poison: str,
    once: list[str],
) -> list[str]:
    """What is not as it should be: all but the poison there, made once; the poison tried thrice."""
    wrong = []
    failed = found.failed
    if [each.folder for each in failed] != [poison] or found.quarantined != {poison}:
        wrong.append(f"failed: {[each.error for each in failed]}")
    elif f"series {poison}: quarantined after 3 tries: its " not in failed[0].error:
        wrong.append(f"the poison: {failed[0].error}")
    if content(out) != {name: data for name, data in whole.items() if poison not in name}:
        wrong.append("other bytes than those of an undisturbed run")
    left = [path.name for path in out.iterdir() if path.name.startswith(".")]
    if left:
        wrong.append(f"left behind: {left}")
    tries = [path.name.partition("-")[0] for path in seen.iterdir() if "died" not in path.name]
    expected = {outcome.folder: 1 for outcome in found.outcomes}
    expected |= {poison: 3, **dict.fromkeys(once, 2)}
    if {key: tries.count(key) for key in expected} != expected:
        wrong.append("other tries than one each, two of those whose worker died, three")
    return wrong


def workers(folder: Path, count: int, seed: int) -> Finding:
    """A cohort of so many series; a seed changes nothing."""
    model, tree = write_model(folder / "model"), write_tree(folder / "tree", count, slices=2)
    whole = undisturbed(model, tree, folder / "whole")
    keys = list(tasks_of(tree))
    poison, once = keys[count // 3], [keys[count * i // 5 + 1] for i in range(1, KILLS + 1)]
    seen, out = folder / "seen", folder / "out"
    seen.mkdir()
    deaths = tuple((key, i % 2) for i, key in enumerate(once))
    found = go(tree, out, Processes(work(model, deaths=deaths, poison=(poison,), seen=seen), 2))
    return Finding(
        f"{KILLS} worker kills and 1 poison: all but the poison done, it quarantined",
        count,
        tuple(faults_seen(found, out, seen, whole, poison, once)),
        {"done": found.n_done, "quarantined": len(found.quarantined), "kills": KILLS},
    )


if __name__ == "__main__":
    script(workers, 200)
