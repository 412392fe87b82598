"""Two processes that are joined as those of a run: `python -m tests.support.joined_processes MODE`.

MODE says what they do: `agree` on values, errors, arrays and a signal; `wait` for each other until
one is killed; `stop` at a signal to the first; `fail` while a thread waits.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.gridworld import EXPERIMENT
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.process import run_main
from smz_jax.envs import GameFault, OpponentFault
from smz_jax.run.joining import joined
from smz_jax.run.processes import AgreedStop, alone, beside, gather, is_first


def agree() -> None:
    """What both know, or one alone."""
    import jax
    import jax.numpy as jnp

    from smz_jax.model.lanes import (
        brought_home,
        count_processes,
        from_own,
        of_all_processes,
        to_own,
    )
    from smz_jax.run.devices import make_mesh

    own, mesh = jax.process_index(), make_mesh(1, 2)
    assert (is_first(), count_processes(mesh)) == (own == 0, 2)
    value = {"own": own, "none": float("nan")}
    found = gather(value)
    assert found[own] is value and found[1 - own] == {"own": 1 - own, "none": None}
    calls = []
    assert alone(lambda: calls.append(own) or (1.5, own)) in ((1.5, 0), [1.5, 0])
    assert calls == [0][own:]

    def fail(kind: type[Exception]) -> None:
        raise kind("no game")

    for kind in (GameFault, OpponentFault):
        try:
            alone(partial(fail, kind))
        except GameFault as error:
            assert str(error) == "no game" and type(error) is kind
        else:
            raise AssertionError
    stop = AgreedStop()
    assert not stop
    stop.number = signal.SIGINT if own else None
    assert stop and stop and stop.number == signal.SIGINT

    # Lanes 0, 1 of the first pool and 4, 5 of the second are the first process's own.
    lanes = np.array([[0, 1], [4, 5]]) + 2 * own
    array = from_own([*lanes], mesh)
    assert not array.is_fully_addressable and array.dtype == np.int32
    whole = brought_home({"array": array, "sum": jnp.sum(array), "here": 7})
    assert whole["array"].is_fully_addressable and whole["here"] == 7
    np.testing.assert_array_equal(whole["array"], [0, 1, 2, 3, 4, 5, 6, 7])
    assert int(whole["sum"]) == 28 and whole["sum"].is_fully_addressable
    np.testing.assert_array_equal(to_own(from_own([lanes[0]], mesh), mesh), lanes[0])
    large = np.array([[2**40 + own, -1]])
    np.testing.assert_array_equal(of_all_processes(large)[:, 0, 0], [2**40, 2**40 + 1])
    assert of_all_processes(np.array(own == 1)).tolist() == [False, True]
    share_files(mesh)


def share_files(mesh: Any) -> None:
    """What threads make, and rows of lanes that were saved in one part, in two or in four."""
    import jax
    from jax.sharding import NamedSharding

    from smz_jax.model.lanes import LANES, to_own
    from smz_jax.storage.checkpoint.rows import RowChunks, list_rows, read_rows, write_rows
    from smz_jax.types import Trajectory

    own = jax.process_index()
    assert beside()(lambda: own) == [[0, 1], [1]][own]
    among = beside()
    try:
        among(lambda: 1 // (1 - own))
    except OSError as error:
        assert not own and "process 1: integer" in str(error), error
    except ZeroDivisionError:
        assert own
    else:
        raise AssertionError
    folder = Path(alone(tempfile.mkdtemp))
    cut = NamedSharding(mesh, LANES)
    played = np.arange(4 * 6, dtype=np.int32).reshape(4, 6)

    def of_rewards(reward: Any) -> Trajectory:
        return Trajectory(**{**dict.fromkeys(Trajectory._fields), "reward": reward})  # type: ignore

    for parts in (1, 2, 4):
        rows = [np.split(played, parts)[part] for part in range(parts)]
        chunks = [
            RowChunks(6, 4, 6, {i: of_rewards(x[:, y])}, parts, part)
            for part, x in enumerate(rows)
            for i, y in enumerate((slice(4), slice(2, 6)))
        ]
        written = [write_rows(folder / str(own), x) for x in chunks]
        saved = list_rows(chunks[0], None, written)
        shape = jax.ShapeDtypeStruct((4, 6), np.int32, sharding=cut)
        ring = read_rows(folder / str(own), saved, of_rewards(shape))
        assert ring.reward.sharding == cut
        np.testing.assert_array_equal(to_own(ring.reward, mesh), np.split(played, 2)[own])
        if parts == 4:  # of four parts two are the own ones: the others are not opened
            for place in (0, 1, 4, 5) if own else (2, 3, 6, 7):
                (folder / str(own) / saved.files[place][0]).unlink()
            read_rows(folder / str(own), saved, of_rewards(shape))
    gather(None)
    alone(lambda: shutil.rmtree(folder))


def wait() -> None:
    """The processes tell who they are, and wait for each other."""
    print(*gather(os.getpid()), flush=True)
    while True:
        gather(None)
        time.sleep(0.05)


def fail() -> None:
    """The first process fails while a thread of its own waits for the second one."""
    pool = futures.ThreadPoolExecutor(1)  # as a store's: its thread is waited for at the end
    among = beside()
    pool.submit(among, (lambda: 0) if is_first() else (lambda: time.sleep(60)))
    gather(None)
    if is_first():
        raise ConfigError("its games failed")
    time.sleep(60)


def stop() -> None:
    """A signal to the first process is seen by both."""
    with AgreedStop() as stopped:
        print(*gather(os.getpid()), flush=True)
        while not stopped:
            time.sleep(0.05)
        assert gather(stopped.number) == [signal.SIGINT] * 2
    print("stopped", flush=True)


def main() -> int:
    mode, *flags = sys.argv[1:]
    words = ["-m", "tests.support.joined_processes"]
    count = ["--preset", "tiny", "--processes", "2"]
    with joined(parse([*count, *flags], EXPERIMENT, own=words)):
        {"agree": agree, "wait": wait, "stop": stop, "fail": fail}[mode]()
        if mode == "agree":
            print("agreed")  # of the second process nothing is seen
    return 0


if __name__ == "__main__":
    run_main(main)
