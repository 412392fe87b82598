"""What a run's numbers mean, in plain sentences, and what about them should worry the reader."""

from collections.abc import Iterator, Sequence

from smz_jax.macros.library.gate import closed_gate, prefix_line
from smz_jax.report.data import RunData
from smz_jax.report.text import cut_line, short_count
from smz_jax.storage.estimate import Estimate

DEAD_PERPLEXITY = 1.5  # below it the codebook is as good as collapsed: outcomes share one code
FEW_GAMES = 10  # with fewer different ones an interval over all of them says little


def number_text(value: float) -> str:
    """A score with the digits that are worth reading: 0.31, 8.50, 42.7, 1,234."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def score_text(score: Estimate | None) -> str:
    """A score with its interval: `8.30 (7.10 to 9.60)`; a dash where there is none."""
    return "-" if score is None else score.text(number_text)


def progress_text(run: RunData) -> str:
    """How far the run went: steps, frames, learner steps, time, and whether it is finished."""
    units = {"env_steps": run.unit, "env_frames": "frames", "learner_steps": "learner steps"}
    known = {key: run.summary.get(key) or run.last(key) for key in units}
    parts = [f"{short_count(value)} {units[key]}" for key, value in known.items() if value]
    if seconds := run.summary.get("seconds_total") or run.last("wall_seconds"):
        minutes = seconds / 60
        parts.append(f"{minutes:.1f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours")
    done = ", ".join(parts) or "nothing recorded yet"
    if run.summary.get("finished"):
        return f"Finished: {done}."
    total, steps = run.config.get("total_env_steps"), known["env_steps"]
    share = ""
    if isinstance(total, int) and total > 0 and steps:
        share = f" ({min(steps / total, 1):.0%} of the run)"
    return f"Unfinished, still running or stopped: {done}{share}."


def meaning(run: RunData) -> str:
    """What the score means beside the random policy's and the best constant action's."""
    score = run.evaluation()
    if score is None:
        return _meaning_without_evaluation(run)
    final = bool(run.summary.get("evaluation"))
    start = "The agent" if final else "At its last evaluation during training the agent"
    text = f"{start} scores {score_text(score)} points a game"
    random, best = run.random(), run.best_constant()
    if random is None:
        return f"{text}; no random policy was measured beside it."
    text += f", {_times(score.mean, random.mean)} ({number_text(random.mean)})"
    if best is not None:
        text += f"; the best constant action, {best[0]}, scores {number_text(best[1].mean)}"
    return f"{text}. {_judgement(score, random, best[1] if best else None)}"


def _meaning_without_evaluation(run: RunData) -> str:
    recent, games, random = run.last("score/mean"), run.last("score/count"), run.random()
    if recent is None:
        return "No game has been finished or evaluated yet, so there is no score to speak of."
    count = f"{games:.0f}" if games is not None else "recent"
    beside = "" if random is None else f", the random policy {number_text(random.mean)}"
    return (
        f"No evaluation yet. The last {count} training games score {number_text(recent)} on average"
        f"{beside}; training games explore, so this is no measure of the agent's best play."
    )


def _times(mean: float, random: float) -> str:
    """Ratio to the random score where both are positive, else the difference."""
    if random > 0 and mean >= 0:
        return f"{mean / random:.2f} times the random policy's score"
    side = "above" if mean >= random else "below"
    return f"{number_text(abs(mean - random))} {side} the random policy's score"


def _judgement(score: Estimate, random: Estimate, constant: Estimate | None) -> str:
    """One sentence; an interval that overlaps is never called a difference."""
    if score.mean <= random.mean:
        return "That is no better than random: it has not learned to play."
    if score.floor <= random.ceiling:
        return "The intervals overlap: this does not show that it plays better than at random."
    if constant is None:
        return "That is better than random play."
    if score.mean <= constant.mean:
        return (
            "That is better than random, but no better than holding one button: "
            "it does not show that it has learned to play."
        )
    if score.floor <= constant.ceiling:
        return (
            "That is better than random and above the best constant action, "
            "but within its interval: more games or more training would have to confirm it."
        )
    return "That is better than both, beyond the intervals: it has learned to play."


def find_warnings(runs: Sequence[RunData]) -> list[str]:
    """What a reader must know before trusting the numbers, one sentence each."""
    found = []
    for run in runs:
        name = f"{run.label}: " if len(runs) > 1 else ""
        found += [name + text for text in (*run.problems, *_warnings(run))]
    games = sorted({run.game for run in runs})
    if len(games) > 1:
        found.append(
            f"The runs are of different games ({', '.join(games)}): their scores cannot be "
            "compared, and no baseline is drawn."
        )
    return found


def _warnings(run: RunData) -> Iterator[str]:
    """Of the model, then of the macros, then of the evaluation."""
    if not (run.last("learner_steps") or run.curve("loss/total")[0]):
        yield "No learner step has been recorded: losses and model figures are empty."
    if any(row.get("loss/total", 0.0) is None for row in run.rows[-20:]):
        yield "The loss was not finite lately: the training is broken."
    for name in ("reward", "value"):
        most = [max(run.curve(f"learner/{name}{x}")[1], default=0.0) for x in ("s_cut", "_reach")]
        if all(most) and (support := run.setting("network", f"{name}_support")):
            line = cut_line(name, share=most[0], reach=most[1], support=support)
            yield f"{line[0].upper()}{line[1:]}."
    has_codes = run.setting("network", "codebook_size") != 1
    perplexity = run.last("model/code_perplexity")
    if has_codes and perplexity is not None and perplexity < DEAD_PERPLEXITY:
        yield (
            f"The code perplexity is {perplexity:.2f}: the codebook has collapsed to one code. "
            "Every transition then looks certain, and macros found mean little."
        )
    if has_codes and run.last("check/encoder_gradient") == 0:
        yield "No gradient reached the encoder through its codes at the last check."
    total, capacity = run.last("macros/total"), run.setting("macro", "capacity")
    if dropped := run.last("macros/dropped"):
        yield (
            f"The macro table was full: {short_count(dropped)} entries were dropped "
            f"(macro.capacity is {capacity or 'unset'})."
        )
    elif total and isinstance(capacity, int) and total >= capacity:
        yield f"The macro table is full ({capacity} slots): the next entry drops one."
    for source, name in (("play", "played games"), ("tree", "search trees")):
        rate = run.last(f"macros/certain_rate_{source}")
        if run.last(f"macros/transitions_{source}") and rate in (0.0, 1.0):
            meant = "the test excludes nothing" if rate else "no macro can be found there"
            yield f"{rate:.0%} of the transitions in {name} are certain: {meant}."
    # As `experiments.macros` says them too.
    if run.library and (prefixes := prefix_line(run.library)):
        yield prefixes
    if run.library and run.can_have_macros and (gate := closed_gate(run.library)):
        yield f"No macro is sound. The gate that closed: {gate}."
    if fault := run.summary.get("opponent_fault"):
        yield f"{fault[0].upper()}{fault[1:]}."
    found = run.summary.get("evaluation") or {}
    names = ("cut_share", "search_faults", "games", "distinct")
    cut, faults, games, distinct = map(found.get, names)
    if cut and cut > 0:
        yield (
            f"{cut:.1%} of the evaluation games were cut off at the step limit "
            f"({run.setting('eval', 'max_steps')} steps): their scores count as they stood."
        )
    if faults:
        yield (
            f"In the evaluation's searches {short_count(faults)} outputs of the model were not "
            "finite and were replaced: the training is broken."
        )
    if games and games < 30:
        yield f"The evaluation has only {games} games: its interval is rough."
    if games and distinct and distinct < min(FEW_GAMES, games):
        yield (
            f"Of the {games} evaluation games only {distinct} differ in score or length: if the "
            "others repeat them, as without chance they do, the score is of no more games."
        )
