"""Tiles on a Dask cluster: an existing one, or one of local processes.

Dask manages its machines: a worker that dies is replaced by its nanny, and its tasks are
given to another. This module adds what a long conversion needs beyond that:

- A tile that kills its workers is distinguished from the tiles that happened to run beside it, by trying it
  again with no other suspect around, before it is called a failure.
- A worker on which no tile can succeed (another version, another disk) gets no second one.
- A cluster without workers is waited for; a scheduler that has gone away ends the run with one line.
- The window follows the cluster as it grows and shrinks.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from catalog_builder import storage
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.tile.staging import forget_run
from catalog_builder.convert.workers.dask_worker import (
    CODE,
    Call,
    PickledOptions,
    UnfitWorkerError,
    on_worker,
    unfit,
)
from catalog_builder.convert.workers.processes import WorkerDiedError, Workers
from catalog_builder.errors import ClusterError

_LOOK_EVERY = 1.0
"""Seconds between checks of the cluster."""
_UNREAD = 3
"""How often a tile is done again because its result was lost on the way, as when a scheduler dies."""
ANSWER = 20.0
"""Seconds that a scheduler may take to respond, or to come back."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """One call that was asked for, however often it has to be given to the cluster."""

    name: str
    payload: bytes
    result: Future[Any] = field(default_factory=Future)
    task: Any = None
    """The Dask future that counts; an older one that still reports is not listened to."""
    allowed: frozenset[str] | None = None
    """Workers it may go to; None for all."""
    deaths: int = 0
    """How often it was given up because its workers died."""
    unread: int = 0
    """How often its end was reported, but could not be fetched."""


class DaskWorkers(Workers):
    """The workers of a Dask cluster.

    Parameters
    ----------
    client
        A connected ``distributed.Client``.
    closer
        Called last, to close what belongs to the client.

    Raises
    ------
    ClusterError
        If there are workers, and none of them can do anything.
    """

    def __init__(self, client: Any, closer: Callable[[], None] | None = None) -> None:
        self._client, self._closer = client, closer
        self._address = client.scheduler.address
        self._lock = threading.RLock()
        self._given: set[_Ticket] = set()
        self._lost: list[_Ticket] = []
        self._suspects: deque[_Ticket] = deque()
        self._trial: _Ticket | None = None
        self._threads: dict[str, int] = {}
        self._unfit: dict[str, str] = {}
        self._news: list[str] = []
        self._options = _Pickled()
        self._waits = ""
        """What is waited for, as it was said."""
        self._run: ConvertOptions | None = None
        self._closed = self._knows = False
        self._looked = -_LOOK_EVERY
        self._look()
        self._probe(list(self._threads), None)
        self._give_up_if_all_unfit()

    # --- the protocol of workers

    @property
    def window(self) -> int:
        """Two for each thread, so that none waits for the next tile; more as workers join."""
        return 2 * max(1, sum(n for w, n in self._threads.items() if w not in self._unfit)) + 2

    @property
    def live(self) -> int:
        """Workers that can be used."""
        return sum(1 for w in self._threads if w not in self._unfit)

    def begin(self, options: ConvertOptions) -> None:
        """Check that every present worker sees the output and may write to it.

        Raises
        ------
        ClusterError
            If no worker does.
        """
        self._run = options
        self._probe(list(self._threads), options)
        self._give_up_if_all_unfit()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function on a worker."""
        packed = [self._options.of(a) if isinstance(a, ConvertOptions) else a for a in args]
        # The inner bytes are read only after a look at the version.
        call = Call(on_worker, CODE, pickle.dumps((function, packed)))
        ticket = _Ticket(f"{function.__name__}-{uuid.uuid4().hex}", pickle.dumps(call))
        with self._lock:
            self._given.add(ticket)
            self._give(ticket)
        return ticket.result

    def watch(self) -> list[str]:
        """Look at the cluster now and then; return what is new, in lines.

        Raises
        ------
        ClusterError
            If the scheduler is gone.
        """
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            self._looked = time.monotonic()
            self._look()
        with self._lock:
            news, self._news = self._news, []
        return news

    def withdraw(self) -> None:
        """Withdraw jobs that no worker has started."""
        if not self._given:
            return
        busy = {key for keys in self._ask(self._client.scheduler.processing, {}).values() for key in keys}
        with self._lock:
            for ticket in list(self._given):
                if (ticket.task is None or ticket.task.key not in busy) and ticket.result.cancel():
                    ticket.result.set_running_or_notify_cancel()  # or wait() would not notice
                    self._drop(ticket)

    def kill(self) -> None:
        """Leave the cluster at once; tiles in progress are dropped."""
        self._end()

    def close(self) -> None:
        """Leave the cluster, and nothing on its machines."""
        if self._run is not None and storage.scheme(self._run.out):
            with contextlib.suppress(Exception):  # a worker that is gone; its machine's next run removes it
                self._client.run(pickle.loads, pickle.dumps(Call(forget_run, self._run)), on_error="ignore")
        self._end()

    def _end(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            given, self._given = list(self._given), set()
        for ticket in given:
            ticket.task = None
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)
        if self._closer is not None:
            with contextlib.suppress(Exception):
                self._closer()

    # --- giving tickets to the cluster

    def _give(self, ticket: _Ticket) -> None:
        """Submit a ticket (again)."""
        if self._closed:
            return
        ticket.allowed = frozenset(w for w in self._threads if w not in self._unfit) if self._unfit else None
        if self._client.status != "running":
            ticket.task = None
            self._lost.append(ticket)
            return
        try:
            ticket.task = task = self._client.submit(
                # Neither scheduler nor worker can read a message that needs a package they lack: they would
                # break off. So it is bytes, and on_worker is called as they are read, in the task.
                pickle.loads,
                ticket.payload,
                key=f"{ticket.name}-{uuid.uuid4().hex[:8]}",
                workers=list(ticket.allowed) if ticket.allowed else None,
                pure=False,
            )
        except Exception as error:  # the connection broke meanwhile
            if self._client.status == "running":
                self._drop(ticket)
                ticket.result.set_exception(error)
                return
            ticket.task = None
            self._lost.append(ticket)
            return
        task.add_done_callback(lambda done: self._reported(ticket, done))

    def _reported(self, ticket: _Ticket, task: Any) -> None:
        """Take a result; called in a thread of Dask's."""
        if ticket.task is not task:
            return
        result, error = None, None
        status = task.status
        try:
            if status == "finished":
                result = task.result(timeout=60)
            elif status == "error":
                error = task.exception(timeout=60)
        except Exception as found:  # not the tile's: what became of it cannot be fetched, or read
            ticket.unread += 1
            error, status = found, "error" if ticket.unread > _UNREAD else "lost"
        with self._lock:
            if ticket.task is not task or self._closed:
                return
            if status in ("cancelled", "lost"):
                ticket.task = None
                self._lost.append(ticket)
            elif error is not None:
                self._failed(ticket, error)
            else:
                self._drop(ticket)
                ticket.result.set_result(result)

    def _drop(self, ticket: _Ticket) -> None:
        """Forget a ticket, and let the cluster forget it."""
        self._given.discard(ticket)
        if ticket in self._lost:
            self._lost.remove(ticket)
        if ticket in self._suspects:
            self._suspects.remove(ticket)
        task, ticket.task = ticket.task, None
        if task is not None:
            with contextlib.suppress(Exception):
                task.release()
        if self._trial is ticket:
            self._trial = None
            self._try_next_suspect()

    def _failed(self, ticket: _Ticket, error: BaseException) -> None:
        """Decide whose failure it is: of the tile, of its worker, or of another tile on that worker."""
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            ticket.deaths += 1
            if ticket.deaths == 1:
                ticket.task = None
                self._suspects.append(ticket)
                self._try_next_suspect()
                return
            tried = ticket.deaths * (error.allowed_failures + 1)
            error = WorkerDiedError(f"{WorkerDiedError()}; tried {tried} times")
        elif isinstance(error, UnfitWorkerError):
            self._exclude(error.worker, error.reason)
            self._again(ticket)
            return
        elif self._is_of_a_worker(ticket, error):
            self._again(ticket)
            return
        self._drop(ticket)
        ticket.result.set_exception(error)

    def _is_of_a_worker(self, ticket: _Ticket, error: BaseException) -> bool:
        """Whether a call failed because a worker could not even begin it: it lacks the package."""
        if not isinstance(error, ImportError | AttributeError | pickle.UnpicklingError):
            return False
        self._look()
        self._probe([w for w in self._threads if w not in self._unfit], None)
        return bool(self._unfit.keys() & (self._unfit.keys() if ticket.allowed is None else ticket.allowed))

    def _again(self, ticket: _Ticket) -> None:
        try:
            self._give_up_if_all_unfit()
        except ClusterError as error:
            for given in list(self._given):
                self._drop(given)
                given.result.set_exception(error)
            return
        self._give(ticket)

    def _try_next_suspect(self) -> None:
        """Give one suspect at a time another chance: two of them may have died of one."""
        if self._trial is None and self._suspects and not self._closed:
            self._trial = self._suspects.popleft()
            self._give(self._trial)

    # --- looking after the cluster

    def _look(self) -> None:
        """Learn who is there, and give again what was lost with a connection or a worker."""
        if self._client.status == "closed":
            raise ClusterError(f"{self._address}: the Dask scheduler has gone away")
        if self._client.status != "running":
            self._say_once("the Dask scheduler does not respond: waiting for it")
            return
        threads = self._ask(self._client.scheduler.ncores, None)
        if threads is None:
            return
        with self._lock:
            self._compare(threads)
            lost, self._lost = self._lost, []
            for ticket in lost:
                self._give(ticket)
            for ticket in list(self._given):
                if ticket.allowed is not None and ticket.task is not None and self._live_of(ticket) == 0:
                    old, ticket.task = ticket.task, None
                    with contextlib.suppress(Exception):
                        old.cancel()
                    self._give(ticket)

    def _live_of(self, ticket: _Ticket) -> int:
        return len((ticket.allowed or frozenset()) & self._threads.keys())

    def _compare(self, threads: dict[str, int]) -> None:
        """Say who came and went."""
        gone, new = self._threads.keys() - threads.keys(), threads.keys() - self._threads.keys()
        self._threads = dict(threads)
        for worker in gone:
            self._unfit.pop(worker, None)
        if (gone or new) and self._knows:
            changes = [f"{counted(len(gone))} gone"] * bool(gone) + [f"{counted(len(new))} joined"] * bool(
                new
            )
            self._news.append(f"Dask: {', '.join(changes)}; {self.live} now")
        self._knows = True
        if not threads:
            self._say_once("the Dask cluster has no workers: waiting for some to join")
        else:
            self._waits = ""

    def _say_once(self, text: str) -> None:
        if self._waits != text:
            self._waits = text
            self._news.append(text)

    def _ask(self, call: Callable[..., Any], default: Any) -> Any:
        """Query the scheduler; returns the default if it does not respond."""
        try:
            return self._client.sync(call, workers=None, callback_timeout=ANSWER)
        except Exception:  # whatever a broken connection raises: the client's status will tell
            return default

    def _probe(self, workers: list[str], options: ConvertOptions | None) -> None:
        """Ask workers whether they can do a tile."""
        if not workers:
            return
        try:
            question = pickle.dumps(Call(unfit, CODE, options))
            found = self._client.run(pickle.loads, question, workers=workers, on_error="return")
        except Exception:  # a worker that died while it was asked; its first tile will ask again
            return
        for worker, reason in found.items():
            if isinstance(reason, OSError):
                continue  # gone meanwhile
            if isinstance(reason, BaseException):
                missing = isinstance(reason, ImportError)
                reason = "tessera-stac is not installed there" if missing else f"it cannot start: {reason}"
            if reason:
                self._exclude(worker, reason)

    def _exclude(self, worker: str, reason: str) -> None:
        with self._lock:
            if worker not in self._unfit:
                self._unfit[worker] = reason
                self._news.append(f"Dask worker {worker} is not used: {reason}")

    def _give_up_if_all_unfit(self) -> None:
        """Raise if every present worker is unsuitable."""
        fit = self._threads.keys() - self._unfit.keys()
        if self._threads and not fit:
            worker, reason = next(iter(self._unfit.items()))
            raise ClusterError(f"no worker of the Dask cluster can be used; {worker}: {reason}")


class _Pickled:
    """Options, pickled once for all the tiles they go with."""

    def __init__(self) -> None:
        self._options: ConvertOptions | None = None
        self._bytes = b""

    def of(self, options: ConvertOptions) -> PickledOptions:
        if options is not self._options:
            self._options, self._bytes = options, pickle.dumps(options)
        return PickledOptions(self._bytes)


def counted(n: int) -> str:
    """Return a number of workers for people."""
    return f"{n:,} worker{'' if n == 1 else 's'}"
