"""What PPO learns in the same CPU time: `python -m experiments.peer`.

PPO of stable-baselines3, the tool that one would try first, on this project's own games and by its
own evaluator. Both need `pip install '.[peer]'`.

examples:
  34 CPU minutes of Breakout, evaluated after 5, 15, 25 and 34 of them; longer on a busy machine:
    OMP_NUM_THREADS=1 taskset -c 0 python -m experiments.peer
  the same, and beside it a run of this project:
    python -m experiments.peer --against runs/breakout/20260131-120000-seed0
  a measurement compared anew, without any training; needs neither of the two:
    python -m experiments.peer --measured runs/peer/20260131-130000-seed0 --against RUN_DIR

Settings are those of RL Baselines3 Zoo for Atari: 8 lanes, 128 steps, 4 epochs of batches of 256, a
learning rate of 2.5e-4 and a clip range of 0.1 that fall to 0 over --total_steps, entropy 0.01,
value 0.5. Games are those of preset laptop: clipped rewards, a lost life ends an episode, FIRE is
pressed, no sticky actions. Evaluations play whole games and draw their actions from the policy.

CPU time is user and system time of all threads. PPO's is of its training alone; that of a run has
all in it, with compilation and evaluations. Of a run the table shows an evaluation at most a tenth
after the peer's, else the mean of recent training games, which explore.

It leaves runs/peer/<time>-seed<seed>/: peer.json, metrics.jsonl, peer.md, peer.png.
"""  # noqa: D405

if not __package__:
    raise SystemExit("error: type `python -m experiments.peer` in the project's root")

import importlib.util

from experiments.peer.request import NEEDED, PeerRequest
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main


def check_extra() -> None:
    """Raises ConfigError in one line where what the peer is made of is not installed."""
    missing = [name for module, name in NEEDED.items() if not importlib.util.find_spec(module)]
    if missing:
        raise ConfigError(f"not installed: {', '.join(missing)}; type pip install '.[peer]'")


def peer(request: PeerRequest) -> int:
    """Trains and evaluates unless there is a measurement; prints and writes the comparison.

    Raises:
        ConfigError: in one line, if something is not installed, or a folder or the game is wrong.
    """
    if request.measured is None:
        check_extra()
    from experiments.peer.comparison import compare, read_runs

    folder = request.measured
    if folder is None:
        read_runs(request.against, request.game)  # a wrong one is answered before the training
        from experiments.peer.training import measure

        folder = measure(request)
    print(compare(folder, request.against))
    return 0


main = tool(peer, PeerRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
