"""Journal of a cohort: the state of every series, in one SQLite file that survives crashes.

One process writes it: it leases series to its workers, renews the leases while it runs, and records
outcomes. The leases of a process that has ended on this machine are freed by the next run here;
those of another machine expire. A row identifies a series by a hash of its UID, and no patient.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from cvsct.core.errors import CvsctError

MAX_DEATHS = 3
"""Number of workers that may die with a series before it is quarantined."""
LEASE_S = 120.0
"""Time after which a lease expires that is not renewed."""
RENEW_S = 10.0
"""Interval at which leases are renewed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    key TEXT PRIMARY KEY,
    status TEXT NOT NULL DEFAULT 'waiting',
    present INTEGER NOT NULL DEFAULT 1,
    leases INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    until REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    sha256 TEXT NOT NULL DEFAULT '',
    derived_uid TEXT NOT NULL DEFAULT '',
    n_slices INTEGER NOT NULL DEFAULT 0,
    mean_change_hu REAL NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    guard TEXT NOT NULL DEFAULT '',
    notes TEXT NOT NULL DEFAULT '',
    synthesis TEXT NOT NULL DEFAULT '',
    uncertainty TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS by_status ON series (present, status, deaths);
"""

FINDINGS = ("guard", "notes", "synthesis", "uncertainty")
"""Columns that hold JSON, or nothing."""


@dataclass(frozen=True)
class Entry:
    """Recorded result of a series that is done.

    Args:
        sha256: hash of the folder of the derived series (`core.files.folder_sha256`).
        derived_uid: Series Instance UID of the derived series.
        n_slices: number of slices.
        mean_change_hu: mean absolute change of the voxels, in HU.
        seconds: wall time of the worker.
        guard: findings of the guard as JSON; empty without a guard.
        notes: remarks on the source series as JSON; empty where there are none.
        synthesis, uncertainty: as in `Outcome`, as JSON; empty where there is none.
    """

    sha256: str
    derived_uid: str
    n_slices: int
    mean_change_hu: float
    seconds: float
    guard: str = ""
    notes: str = ""
    synthesis: str = ""
    uncertainty: str = ""


@dataclass(frozen=True)
class Row:
    """Row of the journal: the state of one series.

    Args:
        key: hash of its Series Instance UID.
        status: `waiting`, `leased`, `done`, `failed` or `quarantined`.
        error: why it failed or was quarantined.
        entry: result of a series that is done; empty values otherwise.
    """

    key: str
    status: str
    error: str
    entry: Entry


class Journal:
    """An open journal.

    Args:
        path: the file, which only one process writes; created if it does not exist. `:memory:`
            for a journal that is discarded when it is closed.
        host: name of this machine; empty to ask the system.

    Raises:
        CvsctError: if the file cannot be read or written, here and in every method.
    """

    def __init__(self, path: Path, host: str = "") -> None:
        self.path = path
        self._host = host or socket.gethostname()
        self._owner = f"{self._host}:{os.getpid()}"
        with self._sqlite_errors_explained():
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            columns = {row[1] for row in self._db.execute("PRAGMA table_info(series)")}
            for name in FINDINGS:  # missing in journals of older versions
                if name not in columns:
                    self._db.execute(
                        f"ALTER TABLE series ADD COLUMN {name} TEXT NOT NULL DEFAULT ''"
                    )

    @property
    def name(self) -> str:
        """Name of the journal's file, without the suffix."""
        return self.path.stem.strip(":")

    @property
    def outlives_the_run(self) -> bool:
        """Whether another run can continue from this journal."""
        return self.path != Path(":memory:")

    def close(self) -> None:
        """Free all leases of this process, and close the file."""
        with contextlib.suppress(CvsctError), self._writing() as db:
            db.execute("UPDATE series SET status='waiting' WHERE " + _OURS, (self._owner,))
        self._db.close()

    def begin(self, keys: Iterable[str]) -> None:
        """Register the series of this run, and free leases that ended runs on this machine left.

        Call it only while no other run on this machine can use the same file.
        """
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status='waiting' "
                "WHERE status='leased' AND substr(owner, 1, length(?1)) = ?1",
                (f"{self._host}:",),
            )
            db.execute("UPDATE series SET present=0")
            db.executemany(
                "INSERT INTO series (key) VALUES (?) ON CONFLICT (key) DO UPDATE SET present=1",
                ((key,) for key in keys),
            )

    def forgive(self) -> None:
        """Set failed and quarantined series back to waiting, so that they are tried again."""
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status='waiting', deaths=0, error='' "
                "WHERE present=1 AND status IN ('failed', 'quarantined')"
            )

    def lease(self) -> tuple[str, int] | None:
        """Lease the next series; returns its key and number of leases, None if none is waiting."""
        with self._writing() as db:
            leased: tuple[str, int] | None = db.execute(
                "SELECT key, leases + 1 FROM series WHERE present=1 AND status='waiting' "
                "ORDER BY deaths, rowid LIMIT 1"  # the order of the index
            ).fetchone()
            if not leased:
                leased = db.execute(
                    "SELECT key, leases + 1 FROM series WHERE present=1 AND status='leased' "
                    "AND owner!=? AND until<? LIMIT 1",
                    (self._owner, time.time()),
                ).fetchone()
            if leased:
                db.execute(
                    "UPDATE series SET status='leased', leases=leases+1, owner=?, until=? "
                    "WHERE key=?",
                    (self._owner, time.time() + LEASE_S, leased[0]),
                )
        return leased

    def renew(self) -> None:
        """Extend all leases of this process by `LEASE_S`."""
        with self._writing() as db:
            db.execute(
                "UPDATE series SET until=? WHERE " + _OURS, (time.time() + LEASE_S, self._owner)
            )

    def holds(self, key: str) -> bool:
        """Whether this process still holds the lease of a series."""
        with self._sqlite_errors_explained():
            row = self._db.execute(
                "SELECT 1 FROM series WHERE key=? AND " + _OURS, (key, self._owner)
            ).fetchone()
        return row is not None

    def done(self, key: str, entry: Entry) -> None:
        """Record a series as done, unless its lease has been lost."""
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status='done', error='', sha256=?, derived_uid=?, n_slices=?, "
                "mean_change_hu=?, seconds=?, guard=?, notes=?, synthesis=?, uncertainty=? "
                "WHERE key=? AND " + _OURS,
                (*astuple(entry), key, self._owner),
            )

    def failed(self, key: str, error: str) -> None:
        """Record why a series cannot be harmonized; it is not tried again."""
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status='failed', error=? WHERE key=? AND " + _OURS,
                (error, key, self._owner),
            )

    def died(self, key: str, error: str, guilty: bool) -> None:
        """Free a series whose worker has died; quarantine it after `MAX_DEATHS` deaths.

        Args:
            key: key of the series.
            error: description of the death.
            guilty: whether the worker had started the series, so that it may be the cause.
        """
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status=CASE WHEN deaths+?>=? THEN 'quarantined' ELSE 'waiting' "
                "END, deaths=deaths+?, error=? WHERE key=? AND " + _OURS,
                (guilty, MAX_DEATHS, guilty, error, key, self._owner),
            )

    def reopen(self, key: str) -> None:
        """Set a series back to waiting because its folder differs from what was recorded."""
        with self._writing() as db:
            db.execute("UPDATE series SET status='waiting', sha256='' WHERE key=?", (key,))

    def rows(self) -> Iterator[Row]:
        """Rows of the registered series, in the order of their registration."""
        with self._sqlite_errors_explained():
            for row in self._db.execute(f"{_SELECT} WHERE present=1 ORDER BY rowid"):
                yield _row_of(row)

    def row(self, key: str) -> Row:
        """Row of one registered series."""
        with self._sqlite_errors_explained():
            return _row_of(self._db.execute(f"{_SELECT} WHERE key=?", (key,)).fetchone())

    def n_open(self) -> int:
        """Number of series that are waiting or leased."""
        counts = self.counts()
        return counts.get("waiting", 0) + counts.get("leased", 0)

    def counts(self) -> dict[str, int]:
        """Number of series by status."""
        with self._sqlite_errors_explained():
            return dict(
                self._db.execute(
                    "SELECT status, COUNT(*) FROM series WHERE present=1 GROUP BY status"
                )
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, which is on disk when the block has ended."""
        with self._sqlite_errors_explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _sqlite_errors_explained(self) -> Iterator[None]:
        """Turn errors of SQLite into messages for the user."""
        try:
            yield
        except sqlite3.Error as error:
            raise CvsctError(
                f"{self.path}: the journal cannot be used ({error}); it needs a disk with free "
                "space and file locks, and the same command then goes on"
            ) from error


_OURS = "status='leased' AND owner=?"
_SELECT = (
    "SELECT key, status, error, sha256, derived_uid, n_slices, mean_change_hu, seconds, guard, "
    "notes, synthesis, uncertainty FROM series"
)


def _row_of(values: tuple[Any, ...]) -> Row:
    key, status, error, *entry = values
    return Row(key, status, error, Entry(*entry))
