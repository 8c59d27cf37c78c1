"""Executors of runs: worker processes on this machine, or the workers of a Dask scheduler.

`experiments.run(..., executor=...)` takes any `concurrent.futures.Executor` whose workers can import this package in
the same version, so the same code runs on a laptop and on a cluster. Two processes on this machine:

    study = experiments.STUDIES["mnist_m"]()
    with experiments.executors.local(2) as pool:
        results = experiments.run(study, folder="results/mnist_m", executor=pool, progress=True)

The workers of a Dask scheduler that runs already (`pip install "dgprune-lab[dask]"`):

    with experiments.executors.dask("tcp://host:8786") as pool:
        results = experiments.run(study, folder="results/mnist_m", executor=pool, progress=True)

Slurm, through dask-jobqueue; each job is a worker, and one is requested for each remaining run, at most 100:

    from dask.distributed import Client
    from dask_jobqueue import SLURMCluster

    with SLURMCluster(cores=1, processes=1, memory="4GB", walltime="02:00:00", queue="gpu") as cluster:
        cluster.adapt(maximum_jobs=100)
        with Client(cluster) as client:
            results = experiments.run(study, folder="results/mnist_m", executor=client.get_executor(pure=False))

Kubernetes, through dask-kubernetes, with an image in which this package is installed:

    from dask_kubernetes.operator import KubeCluster

    with KubeCluster(name="mnist-m", image="registry/dgprune-lab:0.1", n_workers=20) as cluster:
        with Client(cluster) as client:
            results = experiments.run(study, folder="results/mnist_m", executor=client.get_executor(pure=False))

Give each worker one thread: it computes one run at a time, however many threads it has. The process that calls `run`
writes the results folder, on a local disk of its machine. Under the same path, workers save the networks that several
runs share; unless it is on a shared disk, each machine trains them once.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ..core import Count, DgpruneError, Positive, end_with_parent, public
from ..core.machine import cores


class _Cancelled(Future[Any]):
    """A future that, once cancelled, ignores exceptions; on Python 3.11 these would end the thread of a broken pool."""

    def set_exception(self, exception: BaseException | None) -> None:
        if not self.cancelled():
            super().set_exception(exception)


__all__ = ["dask", "local"]


class Workers(ProcessPoolExecutor):
    """Worker processes that end with the process that uses them, and immediately if the block raises an error."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        future.__class__ = _Cancelled
        return future

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is not None:
            for process in list((self._processes or {}).values()):
                process.terminate()
        return super().__exit__(kind, error, trace)


@public
def local(workers: Count = 1) -> Executor:
    """Return an executor of worker processes on this machine, one thread each.

    Use it in a `with` block: Ctrl-C ends the workers at once. They also end if this process is killed. Where the system
    can fork, a server process imports the package once for all workers, so each starts in 0.1 s. A script that calls
    this function needs `if __name__ == "__main__":`.

    Args:
        workers: number of processes.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([f"{__package__}.studies", f"{__package__}.worker"])
    return Workers(workers, mp_context=context, initializer=_init_worker)


@public
@contextmanager
def dask(address: str, *, timeout: Positive = 10.0) -> Iterator[Executor]:
    """Yield an executor on the workers of a running Dask scheduler; leaving the block closes the connection.

    Workers may join and leave; Dask gives a run whose worker ends to another worker.

    Args:
        address: address of the scheduler, "tcp://host:8786".
        timeout: seconds to wait for the scheduler's answer.

    Raises:
        DgpruneError: Dask is not installed; no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise DgpruneError(f"a scheduler needs Dask ({error}): pip install 'dgprune-lab[dask]'.") from None
    client = Client.__new__(Client)
    try:
        client.__init__(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, TypeError, AssertionError) as error:
        if getattr(client, "status", "") == "connecting":
            client.close()  # else Dask does it when Python ends, in vain, and prints why
        raise DgpruneError(
            f"address: no Dask scheduler answers at {address!r} ({error}). Start one with "
            "`dask scheduler`, which prints its address, and its workers with `dask worker ADDRESS --nthreads 1`."
        ) from error
    with client:
        yield client.get_executor(pure=False)


def _init_worker() -> None:
    """Make a worker ignore Ctrl-C, which the driver handles, and end with the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def width(executor: Executor | None) -> int:
    """Return how many runs an executor computes at a time, as far as it is known; 1 for this process (None)."""
    if executor is None:
        return 1
    client: Any = getattr(executor, "_client", None)  # of a Dask executor; it has no public name
    if client is not None:
        return sum(client.nthreads().values())
    return int(getattr(executor, "_max_workers", None) or cores())


def is_local(executor: Executor | None) -> bool:
    """Return whether an executor computes on this machine; if so, data missing here are missing for its workers."""
    return executor is None or isinstance(executor, ProcessPoolExecutor)
