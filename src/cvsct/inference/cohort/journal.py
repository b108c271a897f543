"""The journal of a cohort: what became of every series, in one SQLite file that outlives any crash.

One process keeps it: it leases series to its workers, renews the leases while it lives and records
the ends. A lease is lost at once with the process that held it on this machine, and by time where
another machine's run held it. A row holds the hash of a series' UID and nothing else of a patient.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvsct.core.errors import CvsctError

MAX_DEATHS = 3
"""Workers that a series may cost before it is quarantined."""
LEASE_S = 120.0
RENEW_S = 10.0

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
    notes TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS by_status ON series (present, status, deaths);
"""


@dataclass(frozen=True)
class Entry:
    """A series that is done.

    Args:
        sha256: of the folder it was written to (`core.files.folder_sha256`).
        seconds: it took its worker.
        guard: what guards had to say of it, as JSON; empty where none was at work.
        notes: what was odd about it, as JSON; empty where nothing was.
    """

    sha256: str
    derived_uid: str
    n_slices: int
    mean_change_hu: float
    seconds: float
    guard: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Row:
    """A series as the journal knows it.

    Args:
        key: hash of its Series Instance UID.
        status: `waiting`, `leased`, `done`, `failed` or `quarantined`.
        entry: of one that is done, zeros otherwise.
    """

    key: str
    status: str
    error: str
    entry: Entry


class Journal:
    """An open journal.

    Args:
        path: on a disk that no other process writes this file on; made where it is not there.
            `:memory:` for a journal that nobody needs once it is closed.
        host: this machine's name.

    Raises:
        CvsctError: if the file cannot be opened, here and in every method.
    """

    def __init__(self, path: Path, host: str = "") -> None:
        self.path = path
        self._host = host or socket.gethostname()
        self._owner = f"{self._host}:{os.getpid()}"
        with self._told():
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            there = {row[1] for row in self._db.execute("PRAGMA table_info(series)")}
            for name in ("guard", "notes"):  # a run begun by a version without these goes on
                if name not in there:
                    self._db.execute(
                        f"ALTER TABLE series ADD COLUMN {name} TEXT NOT NULL DEFAULT ''"
                    )

    @property
    def name(self) -> str:
        """Of its file, without the suffix."""
        return self.path.stem.strip(":")

    @property
    def outlives_the_run(self) -> bool:
        """Whether another run can go on from it."""
        return self.path != Path(":memory:")

    def close(self) -> None:
        """Give back what is still leased, and close the file."""
        with contextlib.suppress(CvsctError), self._writing() as db:
            db.execute("UPDATE series SET status='waiting' WHERE " + _OURS, (self._owner,))
        self._db.close()

    def begin(self, keys: Iterable[str]) -> None:
        """Take in these series, and the leases that runs on this machine have left behind.

        Call it only while no other run on this machine can be at work with the same file.
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
        """Have series that failed or were quarantined tried again."""
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status='waiting', deaths=0, error='' "
                "WHERE present=1 AND status IN ('failed', 'quarantined')"
            )

    def lease(self) -> tuple[str, int] | None:
        """Take the next series: its key, and how often it has been leased; none where none is."""
        with self._writing() as db:
            found: tuple[str, int] | None = db.execute(
                "SELECT key, leases + 1 FROM series WHERE present=1 AND status='waiting' "
                "ORDER BY deaths, rowid LIMIT 1"  # the order of the index
            ).fetchone()
            if not found:
                found = db.execute(
                    "SELECT key, leases + 1 FROM series WHERE present=1 AND status='leased' "
                    "AND owner!=? AND until<? LIMIT 1",
                    (self._owner, time.time()),
                ).fetchone()
            if found:
                db.execute(
                    "UPDATE series SET status='leased', leases=leases+1, owner=?, until=? "
                    "WHERE key=?",
                    (self._owner, time.time() + LEASE_S, found[0]),
                )
        return found

    def renew(self) -> None:
        """Keep what is leased to this process for another `LEASE_S`."""
        with self._writing() as db:
            db.execute(
                "UPDATE series SET until=? WHERE " + _OURS, (time.time() + LEASE_S, self._owner)
            )

    def holds(self, key: str) -> bool:
        """Whether the lease of a series is still this process's."""
        with self._told():
            found = self._db.execute(
                "SELECT 1 FROM series WHERE key=? AND " + _OURS, (key, self._owner)
            ).fetchone()
        return found is not None

    def done(self, key: str, entry: Entry) -> None:
        """Record a series as done; nothing where its lease has been lost."""
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status='done', error='', sha256=?, derived_uid=?, n_slices=?, "
                "mean_change_hu=?, seconds=?, guard=?, notes=? WHERE key=? AND " + _OURS,
                (
                    *(entry.sha256, entry.derived_uid, entry.n_slices),
                    *(entry.mean_change_hu, entry.seconds, entry.guard, entry.notes),
                    *(key, self._owner),
                ),
            )

    def failed(self, key: str, error: str) -> None:
        """Record why a series cannot be harmonised; that is final."""
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status='failed', error=? WHERE key=? AND " + _OURS,
                (error, key, self._owner),
            )

    def died(self, key: str, error: str, guilty: bool) -> None:
        """Give a series back whose worker has died; quarantine it after `MAX_DEATHS`.

        Args:
            guilty: whether the worker had begun with it, so that it may be the cause.
        """
        with self._writing() as db:
            db.execute(
                "UPDATE series SET status=CASE WHEN deaths+?>=? THEN 'quarantined' ELSE 'waiting' "
                "END, deaths=deaths+?, error=? WHERE key=? AND " + _OURS,
                (guilty, MAX_DEATHS, guilty, error, key, self._owner),
            )

    def reopen(self, key: str) -> None:
        """Have a series made again whose folder is not what was recorded."""
        with self._writing() as db:
            db.execute("UPDATE series SET status='waiting', sha256='' WHERE key=?", (key,))

    def rows(self) -> Iterator[Row]:
        """The series taken in, in the order in which they came."""
        with self._told():
            for row in self._db.execute(f"{_SELECT} WHERE present=1 ORDER BY rowid"):
                yield _row_of(row)

    def row(self, key: str) -> Row:
        """One of the series taken in."""
        with self._told():
            return _row_of(self._db.execute(f"{_SELECT} WHERE key=?", (key,)).fetchone())

    def n_open(self) -> int:
        """Series that are waiting or being worked on."""
        counts = self.counts()
        return counts.get("waiting", 0) + counts.get("leased", 0)

    def counts(self) -> dict[str, int]:
        """How many series have each status."""
        with self._told():
            return dict(
                self._db.execute(
                    "SELECT status, COUNT(*) FROM series WHERE present=1 GROUP BY status"
                )
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when the block has ended."""
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
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
    "notes FROM series"
)


def _row_of(values: tuple[Any, ...]) -> Row:
    key, status, error, *entry = values
    return Row(key, status, error, Entry(*entry))
