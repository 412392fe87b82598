# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tutorial
#
# Stochastic MuZero learns a model of a game in which chance is explicit. After an action comes an
# *afterstate*, then one of a few *chance codes*, then the next state. It plans in that model with a
# tree search. From the same trees this project mines *macros*: sequences of actions whose every
# transition the model calls certain.
#
# This notebook trains an agent, looks into one of its trees, compares its chance codes with the
# rules of a world that are known, tries macros against these rules, and then uses an environment of
# your own. The stored outputs are of the preset `smoke`: what is trained here has learned for half
# a minute. The figures of well-trained agents are of weights that come along.
#
# Words are explained in the
# glossary of the documentation (`docs/glossary.md`).
#
# Install it in a checkout with `pip install -r requirements.txt '.[notebook]' jupyterlab`, and open
# it with `jupyter lab docs/tutorial.ipynb` (an editor that shows notebooks needs no jupyterlab).
# Running it takes about five minutes on one core of a CPU.

# %%
import os

import gymnasium
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

import smz_jax

# The size of the trainings below: "tiny" takes seconds and learns nothing, for a first look.
PRESET = os.environ.get("SMZ_TUTORIAL_PRESET", "smoke")
SEEDS = (0,) if PRESET == "tiny" else (0, 1)

# %% [markdown]
# ## Train
#
# `train` is the command `python -m experiments.cartpole` as a function. The preset `smoke` is
# short; `laptop`, the default on a CPU, reaches the limit of 500 in minutes. Every setting of
# `--help` may be given by its name.

# %%
run = smz_jax.train("cartpole", {"eval.num_games": 20}, preset=PRESET, seed=0, run_dir="runs/pole")

# %% [markdown]
# The run left a folder with its settings, metrics, checkpoints, macros and a report. The report's
# figures are files.

# %%
Image(run.figures["score"], width=640)

# %% [markdown]
# ## A trained agent
#
# Weights of longer runs come with the package and are found by name. `print` says what a model is,
# and every score that is known of it.

# %%
pole = smz_jax.load("cartpole")
print(pole)

# %% [markdown]
# It acts in any environment that shows the same observations.

# %%
env = gymnasium.make("CartPole-v1")
observation, _ = env.reset(seed=1)
for _ in range(25):
    observation, *_ = env.step(pole.act(observation))
print("cart, its speed, pole, its speed:", observation.round(3))

# %% [markdown]
# ## Into one search tree
#
# `search` gives what the tree says at its root. For each action: the simulations that went that
# way, its value, the policy head's prior, the improved policy, and the entropy of the chance codes
# after it (0: the model is certain of what follows, 1: it has no idea).

# %%
look = pole.search(observation)
print(look)

# %% [markdown]
# The tree itself: decision nodes are round, chance nodes square. Where the model is certain of what
# follows, the chance node is only a small hollow square. `look.figure()` gives it for a file.

# %%
look

# %% [markdown]
# ## Chance codes against the rules
#
# The slippery grid is a world whose rules are known. On ice (`~`) a move slides to one side now and
# then. So the model's entropy of each state and action can be compared with the true one.

# %%
from smz_jax.envs.grid import rules as grid_rules
from smz_jax.envs.grid.grid_env import world_of

grid = smz_jax.load("gridworld")
rules, frames = world_of(grid.config.env)
print("\n".join(rules.grid.rows))

# %%
names, codes = grid.spec.action_names, grid.config.network.codebook_size
seen = [grid.search(frame) for frame in frames]
model_entropy = np.stack([x.entropy for x in seen]) * np.log(codes)
true_entropy = grid_rules.true_entropy(rules)

fig, axes = plt.subplots(figsize=(4.5, 4))
reached = grid_rules.reachable(rules)
axes.scatter(true_entropy[reached], model_entropy[reached], s=18, alpha=0.5)
axes.plot([0, 1.2], [0, 1.2], color="grey", linewidth=1)
axes.set(xlabel="entropy by the rules, nats", ylabel="entropy of the model's codes, nats")
axes.set_title("One dot: a state and an action")
plt.show()

# %% [markdown]
# Dots far from the line are mostly pairs that a good player never sees. One pair closely: what the
# rules say may happen, and the probabilities of the likeliest codes.

# %%
visited = np.argwhere(grid_rules.is_random(rules) & reached[:, None])
errors = [abs(model_entropy[s, a] - true_entropy[s, a]) for s, a in visited]
state, action = visited[int(np.argsort(errors)[len(errors) // 4])]
chances = sorted(rules.probability[state, action], reverse=True)
print("cell", rules.place[state], "action", names[action])
print("rules:", [round(float(p), 2) for p in chances if p > 0])
print("codes:", [round(float(p), 2) for p in sorted(seen[state].chance[action])[::-1][:5]])

# %% [markdown]
# ## Macros and their verification
#
# A macro is *sound* when every transition kept being certain, it came back often, and it proved
# true when it was replayed. `verify` tries it where it claims to hold. In the grid world that is an
# exact comparison with the rules, from every state; beside it the same is done with controls.

# %%
for macro in grid.macros(status="sound", no_repeats=True, top=5):
    print(macro["names"], " seen", macro["count"], "times, held in", f"{macro['held']:.0%}")

# %%
small = PRESET == "tiny"
found = grid.verify(macros=4 if small else 16, games=2 if small else 8, max_steps=100)
for library in found["libraries"]:
    held = library["totals"]["whole"]  # trials whose end was as foreseen, rather than another state
    shares = [held[x] for x in ("mean", "low", "high") if held[x] is not None]
    text = ", ".join(f"{x:.0%}" for x in shares) or "never applied"
    print(f"{library['name']:35} {len(library['macros']):3d} macros; held, and its bounds: {text}")

# %% [markdown]
# `smz_jax.analysis.verify.verify_table.to_text(found)` is the whole table, which
# `python -m experiments.verify gridworld --out somewhere` prints and writes.

# %% [markdown]
# ## An environment of your own
#
# Any Gymnasium environment will do. Here a walk on seven cells: the right end pays 1, the left end
# costs 1, and a gust blows the walker back by one cell in three steps of ten.


# %%
class GustyWalk(gymnasium.Env):
    """Seven cells; actions LEFT and RIGHT; a gust from the right with probability 0.3."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (7,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        """The middle."""
        super().reset(seed=seed)
        self.cell = 3
        return self.seen(), {}

    def step(self, action):
        """One cell, less the gust."""
        move = 2 * int(action) - 1
        self.cell = int(np.clip(self.cell + move - (self.np_random.random() < 0.3), 0, 6))
        ended = self.cell in (0, 6)
        reward = {0: -1.0, 6: 1.0}.get(self.cell, 0.0)
        return self.seen(), reward, ended, False, {}

    def seen(self):
        """One cell is 1."""
        return np.eye(7, dtype=np.float32)[self.cell]


gymnasium.register("GustyWalk-v0", GustyWalk, max_episode_steps=50)

# %%
mine = {"env.id": "GustyWalk-v0", "network.codebook_size": 4, "eval.num_games": 64}
if PRESET != "tiny":
    mine["total_env_steps"] = 2048
runs = {"with chance codes": [], "without": []}
for seed in SEEDS:
    where = f"runs/walk-{seed}"
    one = smz_jax.train("gym", mine, preset=PRESET, seed=seed, run_dir=where, quiet=True)
    runs["with chance codes"].append(one)
print("return of seed 0:", runs["with chance codes"][0].summary["evaluation"]["mean"])

# %% [markdown]
# What the model has learned of the gust: in the middle, a step to the right.

# %%
walk = smz_jax.load(runs["with chance codes"][0].run_dir)
middle = np.eye(7, dtype=np.float32)[3]
print(walk.search(middle))
print("chance codes after RIGHT:", walk.search(middle).chance[1].round(2), "(gust: 0.3)")

# %% [markdown]
# ## One idea changed: a small ablation
#
# With a codebook of one code the model cannot say what chance did: it is plain MuZero in the same
# code. Everything else stays. Each variant has the same seeds. Numbers of so few and short runs
# show how it is done, not what is true: a sweep (`docs/sweep.md`) has intervals.

# %%
plain = {**mine, "network.codebook_size": 1, "search.collapse_threshold": 0.01}
for seed in SEEDS:
    where = f"runs/walk-plain-{seed}"
    one = smz_jax.train("gym", plain, preset=PRESET, seed=seed, run_dir=where, quiet=True)
    runs["without"].append(one)

fig, axes = plt.subplots(figsize=(6, 3.2))
for (name, several), colour in zip(runs.items(), ("tab:blue", "tab:orange"), strict=True):
    for number, one in enumerate(several):
        steps, losses = one.course("loss/reward")
        axes.plot(steps, losses, color=colour, label=name if number == 0 else None)
    print(f"{name}: returns", [round(x.summary["evaluation"]["mean"], 2) for x in several])
axes.set(xlabel="environment steps", ylabel="loss of the reward", title="Gusty walk")
axes.legend()
plt.show()

# %% [markdown]
# ## Resume and export
#
# A run that was stopped, or is to be longer, continues from its folder, bit for bit. A model
# becomes one small folder with checksums, which `load`, `play` and `--init_from` take. `load` takes
# a run's best model by its evaluations; `load(folder, "last")` the newest.

# %%
steps = run.summary["env_steps"]
longer = {"total_env_steps": steps + steps // 4}
run = smz_jax.train("cartpole", longer, run_dir=run.run_dir, resume=True, quiet=True)
print(steps, "steps became", run.summary["env_steps"])
smz_jax.load(run.run_dir).export("pole-export")
print(smz_jax.load("pole-export").exported.about["env_steps"], "in the export")

# %% [markdown]
# Last, a film of the grid's agent: the action, the macro that it follows, the value it expects and
# how certain it is.

# %%
Image(grid.film("grid.gif", games=2, max_steps=30))
