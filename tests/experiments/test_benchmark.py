"""The benchmarks' arithmetic by hand, the work of their programs, and their command line."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import __main__ as command
from experiments.benchmark import drawn, parts, search, soak, timing, torsos, turns
from experiments.benchmark.programs import (
    CODEBOOK_SIZE,
    NUM_ACTIONS,
    SUBJECTS,
    Task,
    arguments,
    build,
    tree_bytes,
)
from experiments.benchmark.search import THRESHOLD
from experiments.benchmark.timing import figure
from smz_jax.config.check import ConfigError

ROOT = Path(__file__).resolve().parents[2]
BATCH = 2

# --- figures ------------------------------------------------------------------------------------

FIGURES = {
    ("conv", 32, 50): (1.2, 2.3, 1.1),
    ("conv", 32, 100): (2.0, 3.3, 1.1),
    ("flat2304", 32, 50): (5.0, 8.0, 2.0),
    ("flat2304", 32, 100): (8.0, 14.0, 2.0),
    ("flat256", 8, 50): (2.5, 4.0, 2.5),
}


def task(engine, simulations, batch=BATCH, **rest):
    return Task("tiny", batch, engine, simulations, **rest)


def test_ratios_by_hand():
    times = {
        task("stock", 8): 6.0,
        task("batched", 8): 2.0,
        task("networks", 8): 1.6,
        task("stock", 8, certain=True): 9.0,
        task("batched", 4, certain=True, threshold=THRESHOLD): 1.5,
        task("networks", 4): 1.0,
        task("batched", 8, certain=True): 2.5,
        task("batched", 8, threshold=THRESHOLD): 2.1,
        task("batched", 8, certain=True, threshold=THRESHOLD): 3.0,
        task("batched", 8, row_multiple=3): 0.8,
        task("batched", 2): 0.4,
    }
    whole = search.Plan({("tiny", BATCH, 8): (3.0, 7.0, 1.2)}, growth=(2, 8), row_multiple=(3,))
    assert set(search.task_groups(whole)[("tiny", BATCH)]) == set(times)
    found = search.figures(whole, times)
    assert [figure["value"] for figure in found] == pytest.approx(
        [6 / 2, 9 / 1.5, 2 / 1.6, 1.5 / 1.0, 2.1 / 2, 3.0 / 2.5, 2 / 1.6, 0.8 / 1.6, 0.25 / 0.2]
    )
    verdicts = [True, False, False, None, True, False, False, True, False]
    assert [figure["reached"] for figure in found] == verdicts
    assert found[3] == {
        "case": "tiny, B 2, S 8",
        "what": "collapsing, S 4, over the networks alone",
        "value": 1.5,
        "target": None,
        "at_least": False,
        "reached": None,
    }


def test_a_target_itself_counts_as_reached():
    for at_least in (True, False):
        assert figure("", "", 1.5, 1.5, at_least=at_least)["reached"] is True
        assert figure("", "", 1.6, 1.5, at_least=at_least)["reached"] is at_least


def test_plans_hold_the_figures_to_reach_and_every_size():
    for whole in (search.DEFAULT, search.FULL):
        assert whole.cases == FIGURES
        measured = [task for tasks in search.task_groups(whole).values() for task in tasks]
        found = search.figures(whole, dict.fromkeys(measured, 1.0))
        for (network, batch, simulations), targets in FIGURES.items():
            where = f"{network}, B {batch}, S {simulations}"
            own = [x["target"] for x in found if x["case"] == where][:3]
            assert tuple(own) == targets
        for network in ("conv", "mlp"):
            batches = {batch for name, batch, _ in whole.cells if name == network}
            assert batches == {1, 8, 32, 128}
    cells = search.FULL.cells
    assert {(n, b, s) for n in ("conv", "mlp") for b in (1, 8, 32, 128)
            for s in (25, 50, 100, 200)} <= set(cells)  # fmt: skip
    assert len(cells) == len(set(cells))


def test_acting_figures_by_hand():
    seconds = {"environment": 0.006, "search": 0.003, "in_turn": 0.012, "overlapped": 0.010}
    ratio, share, gain = parts.acting_figures("notebook", seconds, 32)
    assert (ratio["value"], ratio["reached"]) == (pytest.approx(32 / 0.012 / 66), True)
    assert (share["value"], share["target"]) == (pytest.approx(0.75), 0.9)
    assert share["reached"] is False
    assert (gain["value"], gain["reached"]) == (pytest.approx(1.2), True)
    del seconds["overlapped"]
    (only,) = parts.acting_figures("laptop", seconds, 32)
    assert (only["value"], only["target"]) == (pytest.approx(0.75), None)


# --- what is timed ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return SUBJECTS["tiny"]()


@pytest.fixture(scope="module")
def run(tiny):
    programs = {}

    def call(chosen):
        if chosen.program not in programs:
            programs[chosen.program] = build(chosen, tiny)
        return programs[chosen.program](*arguments(chosen, tiny))

    return call


@pytest.mark.parametrize("name", ["conv", "flat2304", "flat256", "tiny"])
def test_the_random_model_is_uncertain_and_the_other_is_certain(name):
    subject = SUBJECTS[name]()
    networks = subject.networks
    for certain in (False, True):
        params, x = subject.params(certain=certain), subject.embedding(6)
        for _ in range(2):
            afterstate = networks.afterstate_dynamics(params, x, jnp.arange(6) % NUM_ACTIONS)
            logits, _ = networks.afterstate_prediction(params, afterstate)
            probs = np.exp(np.float64(jax.nn.log_softmax(logits)))
            entropy = -(probs * np.log(np.maximum(probs, 1e-300))).sum(-1) / np.log(CODEBOOK_SIZE)
            assert (entropy < 1e-9).all() if certain else (entropy > 5 * THRESHOLD).all()
            code = jax.nn.one_hot(jnp.arange(6), CODEBOOK_SIZE)
            x, _ = networks.dynamics(params, afterstate, code)
            assert x.shape == (6, *subject.embedding_shape)
            assert float(x.min()) == 0.0 and float(x.max()) == 1.0


def test_both_engines_do_the_same_search(run):
    stock, batched = run(task("stock", 8)), run(task("batched", 8))
    np.testing.assert_allclose(stock.action_weights, batched.action_weights, atol=1e-6)
    np.testing.assert_array_equal(stock.search_tree.node_visits, batched.tree.node_visits)
    np.testing.assert_array_equal(stock.search_tree.parents, batched.tree.parents)


def test_collapsing_happens_on_the_certain_model_alone(run):
    def chance_nodes(certain):
        tree = run(task("batched", 4, certain=certain, threshold=THRESHOLD)).tree
        assert (np.asarray(tree.node_visits) > 0).all()
        return np.asarray(tree.embeddings.is_chance).sum()

    assert chance_nodes(True) == 0
    assert chance_nodes(False) >= 2 * BATCH


def test_networks_alone_does_the_work_of_each_iteration(tiny):
    """Against a plain loop over the six functions; and no weight is without effect."""
    networks, batch = tiny.networks, 4
    function = build(task("networks", 0), tiny)
    # Wilder weights than the benchmark's, so that rows and steps choose different actions.
    keys = iter(jax.random.split(jax.random.key(26), 40))
    model = jax.tree.map(lambda x: 2 * jax.random.normal(next(keys), x.shape), tiny.model_params)
    params = {**tiny.params(certain=False), **model}
    x = tiny.embedding(batch)
    logits, value = networks.prediction(params, x)
    total = np.asarray(value[:, 0])
    totals, actions, outcomes = [], [], []
    for count in range(5):
        got_x, got_total = function(params, *arguments(task("networks", count, batch), tiny)[1:])
        np.testing.assert_allclose(got_x, x, atol=1e-4)
        np.testing.assert_allclose(got_total, total, rtol=1e-4)
        totals.append(total)
        actions.append(np.argmax(logits, -1))
        afterstate = networks.afterstate_dynamics(params, x, jnp.asarray(actions[-1]))
        chance, afterstate_value = networks.afterstate_prediction(params, afterstate)
        outcomes.append(np.argmax(chance, -1))
        code = jax.nn.one_hot(outcomes[-1], CODEBOOK_SIZE)
        x, reward = networks.dynamics(params, afterstate, code)
        logits, value = networks.prediction(params, x)
        total = total + np.asarray(afterstate_value + reward + value)[:, 0]
    assert len({float(t[0]) for t in totals}) == 5
    for chosen in (np.stack(actions), np.stack(outcomes)):
        assert (chosen != chosen[:1]).any() and (chosen != chosen[:, :1]).any()

    rest = arguments(task("networks", 3, batch), tiny)[1:]
    leaves, structure = jax.tree.flatten_with_path(model)
    unused = 0
    for number, (path, leaf) in enumerate(leaves):
        changed = [value for _, value in leaves]
        # One shifted input of every output, and of the logits by enough to change an arg max.
        changed[number] = leaf + 3.0 * jax.random.normal(jax.random.key(7), leaf.shape)
        model = jax.tree.unflatten(structure, changed)
        _, got = function({**params, **model}, *rest)
        same = np.allclose(got, totals[3], rtol=1e-4)
        name = jax.tree_util.keystr(path)
        unused += same
        assert same == (name == "['decision']['reward']"), name
    assert unused == 1  # the decision half has no reward


def test_tree_memory_by_hand(tiny):
    stock, alone = task("stock", 4), task("networks", 4)
    per_node = 5 * 4 + 6 * NUM_ACTIONS * 4 + 2 * 12 * 4 + 1  # mctx keeps both embeddings
    expected = BATCH * (5 * per_node + 4 * 4)
    assert tree_bytes(build(stock, tiny), *arguments(stock, tiny)) == expected
    assert tree_bytes(build(alone, tiny), *arguments(alone, tiny)) is None


# --- measuring ----------------------------------------------------------------------------------


def test_interleave_takes_turns_and_the_median():
    order, shown = [], []
    values = iter([1.0, 10.0, 5.0, 20.0, 2.0, 90.0])

    def case(name):
        return lambda: order.append(name) or next(values)

    cases = {"a": case("a"), "b": case("b")}
    medians = timing.interleave(cases, seconds=0.0, rounds=3, show=shown.append)
    assert order == ["a", "b"] * 3
    assert shown == [f"{name}, round {r}" for r in (1, 2, 3) for name in "ab"]
    assert medians == {"a": 2.0, "b": 20.0}


@pytest.fixture
def made_up(monkeypatch, tiny):
    """A simulation takes 2 ms, three times as long in stock mctx, half in the networks alone."""
    scale = {"stock": 3.0, "mctx": 3.0, "batched": 1.0, "networks": 0.5}

    def seconds_for(task):
        return 0.002 * task.simulations * scale[task.engine]

    def measure_group(tasks, seconds, rounds, step):
        return {
            task: {
                **task._asdict(),
                "seconds": seconds_for(task),
                "searches_per_second": task.batch / seconds_for(task),
                "compile_seconds": 1.0,
                "tree_bytes": None if task.engine == "networks" else 1000,
            }
            for task in tasks
        }

    monkeypatch.setattr(search, "measure_group", measure_group)
    monkeypatch.setattr(search, "SUBJECTS", dict.fromkeys(SUBJECTS, lambda: tiny))


def test_the_default_plan_gives_every_row_and_figure(made_up):
    result = search.measure(search.DEFAULT, 0.4)
    assert result["left_out"] == []
    assert len(result["cells"]) == len(search.DEFAULT.cells)
    row = result["cells"][0]
    assert (row["network"], row["batch"], row["simulations"]) == ("conv", 32, 50)
    assert row["stock_searches_per_second"] == pytest.approx(32 / 0.3)
    assert row["mctx_searches_per_second"] == pytest.approx(32 / 0.3)
    assert row["batched_searches_per_second"] == pytest.approx(320)
    assert row["networks_searches_per_second"] == pytest.approx(640)
    assert row["batched_over_stock"] == pytest.approx(3.0)
    assert row["time_over_networks"] == pytest.approx(2.0)
    by_case = {(f["case"], f["what"]): f for f in result["figures"]}
    half = by_case["conv, B 32, S 50", "equal decision nodes, x stock"]
    assert (half["value"], half["reached"]) == (pytest.approx(6.0), True)
    growth = by_case["conv, B 32", "time per simulation, S 200 over S 25"]
    assert (growth["value"], growth["reached"]) == (pytest.approx(1.0), True)


def test_a_slow_machine_leaves_out_only_what_no_figure_needs(made_up):
    result = search.measure(search.DEFAULT, 0.4, limit=-1.0)
    assert set(result["left_out"]) == {
        "conv, B 8", "conv, B 1", "conv, B 128", "mlp, B 1", "mlp, B 8", "mlp, B 32", "mlp, B 128"
    }  # fmt: skip
    assert len(result["figures"]) == len(search.measure(search.DEFAULT, 0.4)["figures"])
    assert len(result["cells"]) == len(FIGURES)


def test_without_a_terminal_there_are_a_few_plain_lines(capsys):
    with timing.show_steps(3, "search") as step:
        for text in ("one", "two", "three"):
            step(text)
    assert capsys.readouterr().err == "search: one (0 of 3)\n"


# --- the command line ---------------------------------------------------------------------------


def run_main(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["benchmark", *argv])
    assert command.main() == 0
    return capsys.readouterr().out


def assert_says_where_it_was_measured(result):
    assert result["hardware"]["usable_cores"] >= 1
    assert result["hardware"]["load_before"] >= 0
    assert result["versions"]["mctx"]
    assert "commit" in result and result["rounds"] >= 3


def test_search_prints_and_writes(monkeypatch, capsys, tmp_path):
    path = tmp_path / "search.json"
    out = run_main(monkeypatch, capsys, "search", "--preset=tiny", "--json", str(path))
    assert "reached" in out and "at least 1" in out and str(path) in out.replace("\n", "")
    result = json.loads(path.read_text())
    assert_says_where_it_was_measured(result)
    assert result["command"].startswith("python -m experiments.benchmark search --preset=tiny")
    (row,) = result["cells"]
    assert row.pop("mctx_searches_per_second") is None
    assert row.pop("network") == "tiny"
    assert all(value > 0 and math.isfinite(value) for value in row.values())
    assert row["batched_over_stock"] == pytest.approx(
        row["batched_searches_per_second"] / row["stock_searches_per_second"]
    )
    assert len(result["figures"]) == 8
    records = {Task(*(r[name] for name in Task._fields)): r for r in result["records"]}
    assert set(records) == set(search.task_groups(search.TINY)["tiny", 2])
    assert all(
        r["searches_per_second"] == pytest.approx(2 / r["seconds"]) for r in records.values()
    )


def test_rollout_prints_and_writes(monkeypatch, capsys, tmp_path):
    path = tmp_path / "rollout.json"
    out = run_main(monkeypatch, capsys, "rollout", "--preset", "tiny", "--json", str(path))
    assert "both overlapped" in out
    result = json.loads(path.read_text())
    assert_says_where_it_was_measured(result)
    setting = result["settings"]["tiny"]
    assert setting["config"]["env"]["num_envs"] == 4
    for part in parts.ACTING:
        assert setting["steps_per_second"][part] == pytest.approx(4 / setting["seconds"][part])
    assert [figure["what"] for figure in result["figures"]] == [
        "in turn, x 1 / (t_environment + t_search)",
        "overlapped, x in turn",
    ]


def test_torsos_print_and_write(monkeypatch, capsys, tmp_path):
    path, few = tmp_path / "torsos.json", {"mlp": 1, "lstm": 2}
    monkeypatch.setattr(torsos.measure, "__defaults__", (few,))
    out = run_main(monkeypatch, capsys, "torsos", "--preset", "tiny", "--json", str(path))
    title = "a training step of 4 windows and 1 unroll steps, preset tiny"
    assert title in " ".join(out.split())
    result = json.loads(path.read_text())
    assert_says_where_it_was_measured(result)
    found = result["families"]
    assert {name: x["frames"] for name, x in found.items()} == few
    assert found["mlp"]["times"] == 1
    assert found["lstm"]["times"] == pytest.approx(
        found["lstm"]["seconds"] / found["mlp"]["seconds"]
    )


def test_drawn_actions_print_and_write(monkeypatch, capsys, tmp_path):
    path = tmp_path / "drawn.json"
    monkeypatch.setattr(drawn.measure, "__defaults__", (("gumbel",),))
    words = ["drawn", "--preset", "tiny", "--json", str(path)]
    out = " ".join(run_main(monkeypatch, capsys, *words).split())
    assert "a search of 4 lanes, 4 simulations, preset tiny" in out and "at most 1.5" in out
    result = json.loads(path.read_text())
    assert_says_where_it_was_measured(result)
    found = result["searches"]["gumbel"]
    assert set(found) == {"all 20", "20 of 1,771,561"}
    assert result["figures"][0]["value"] == found["20 of 1,771,561"] / found["all 20"]


def test_turns_print_and_write(monkeypatch, capsys, tmp_path):
    path, few = tmp_path / "turns.json", {"tic_tac_toe": 3}
    monkeypatch.setattr(turns.measure, "__defaults__", (few,))
    out = run_main(monkeypatch, capsys, "turns", "--preset", "tiny", "--json", str(path))
    assert "of one of 4 lanes, 4 simulations" in " ".join(out.split())
    result = json.loads(path.read_text())
    assert_says_where_it_was_measured(result)
    (found,) = result["boards"].values()
    assert found.pop("actions") == 9 and set(found) == {
        "one_player",
        "two_players",
        "host",
        "device",
    }
    assert all(seconds > 0 for seconds in found.values())


def test_parts_print_and_write(monkeypatch, capsys, tmp_path):
    path = tmp_path / "parts.json"
    words = ["--preset", "tiny", "--env.id", "Pong", "--seconds", "0.01", "--json", str(path)]
    assert "training step, batch 4" in run_main(monkeypatch, capsys, *words)
    result = json.loads(path.read_text())
    assert_says_where_it_was_measured(result)
    seconds, speed = result["seconds"], result["speed"]
    assert min(seconds.values()) > 0 and "notebook" not in seconds
    assert speed["searches_per_second"] == pytest.approx(4 / seconds["search"])
    share = (seconds["macro_pass"] + seconds["macro_merge"] / 8) / seconds["search"]
    assert speed["macro_share_of_search"] == pytest.approx(share)


def test_help_teaches_each_command(monkeypatch, capsys):
    overall = run_main(monkeypatch, capsys, "--help")
    assert "search [--full]" in overall and "rollout" in overall and "--json PATH" in overall
    assert run_main(monkeypatch, capsys, "rollout", "-h") == overall
    assert "--full " in run_main(monkeypatch, capsys, "search", "--help")


@pytest.mark.parametrize("argv,message", [
    (["serch"], "unknown command 'serch'; did you mean search?"),
    (["tree"], "unknown command 'tree'; there are search, rollout, torsos, drawn, turns, soak"),
    (["search", "--env.id", "Pong"], "--env.id does not go with search"),
    (["search", "--resume"], "--resume does not go with search"),
    (["search", "--fll"], "unknown flag --fll; did you mean --full?"),
    (["search", "--jsn=x"], "unknown flag --jsn; did you mean --json?"),
    (["search", "--prset", "tiny"], "unknown flag --prset; did you mean --preset?"),
    (["search", "--nothing"], "unknown flag --nothing; --help lists all"),
    (["search", "rollout"], "unexpected argument 'rollout'"),
    (["search", "--full=yes"], "full = 'yes' is not allowed"),
    (["search", "--preset", "laptop"], "tiny, or left out"),
    (["search", "--preset", "tiny", "--full"], "left out with --full"),
    (["search", "--seconds", "0"], "seconds = 0.0 is not allowed"),
    (["search", "--json"], "given a value: --json VALUE"),
    (["search", "--json", "."], "the path of a file that can be written"),
    (["rollout", "--full"], "--full goes with search"),
    (["--full"], "--full goes with search"),
    (["rollout", "--sconds", "3"], "did you mean --seconds?"),
    (["rollout", "--rollout.pool", "2"], "did you mean --rollout.pools?"),
    (["rollout", "--run_dir", "x"], "a benchmark has no run folder"),
    (["--preset", "tiny", "search"], "unexpected argument 'search'"),
])  # fmt: skip
def test_a_mistake_is_one_line(monkeypatch, argv, message):
    monkeypatch.setattr(sys, "argv", ["benchmark", *argv])
    with pytest.raises(ConfigError) as caught:
        command.main()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_mistake_is_answered_before_jax_loads():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['benchmark', 'search', '--env.id', 'Pong']\n"
        "try:\n    runpy.run_module('experiments.benchmark', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, 'jax' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "2 False\n"
    assert done.stderr.count("\n") == 1


def test_thirds_of_a_long_run_by_hand():
    minute = [soak.Sample(t, (100 + t) * 2**20, 9 + (t > 50), 5 + (t > 10)) for t in range(1, 61)]
    rows = [
        {"iteration": t, "wall_seconds": t, "speed/env_steps_per_second": 1000 - t}
        for t in range(1, 61)
    ]
    thirds = soak.summarise(minute, [*rows, {"env_steps": 3}], 60)
    # Of seconds 1 to 20, 21 to 40 and 41 to 60.
    assert [third["memory_mib"] for third in thirds] == [110.5, 130.5, 150.5]
    assert [third["open_files"] for third in thirds] == [9, 9, 10]
    assert [third["compilations"] for third in thirds] == [6, 0, 0]
    assert [third["steps_per_second"] for third in thirds] == [989.5, 969.5, 949.5]
    figures = {x["case"]: x for x in soak.judge(thirds)}
    assert figures["memory"]["value"] == pytest.approx(150.5 / 130.5)
    verdicts = {name: x["reached"] for name, x in figures.items()}
    assert verdicts == {"memory": False, "open files": False, "compilations": True, "speed": True}


def test_soak_trains_until_the_time_is_over(monkeypatch, capsys, tmp_path):
    """And stops like a run that was told to: no handler, no folder is left."""
    handler, path = signal.getsignal(signal.SIGTERM), tmp_path / "soak.json"
    words = ["soak", "--preset", "tiny", "--seconds", "4", "--json", str(path)]
    assert "environment steps/s" in run_main(monkeypatch, capsys, *words, "--env.id", "Pong")
    result = json.loads(path.read_text())
    assert result["samples"][-1]["seconds"] >= 4 and len(result["thirds"]) == 3
    assert signal.getsignal(signal.SIGTERM) is handler
