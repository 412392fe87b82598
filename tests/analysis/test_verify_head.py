"""Verification asks the learned head of the run's own macros, and of nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.analysis.verify import session
from smz_jax.analysis.verify.foresight import Foresight, Learned, Model, where_applies
from smz_jax.analysis.verify.tried_libraries import (
    CERTAIN,
    RANDOM,
    REAL,
    SHUFFLED,
    UNTRAINED,
    Library,
)
from smz_jax.config.settings import Config
from smz_jax.config.training import MacroConfig
from smz_jax.macros.precondition.network import OUTPUT, PreconditionHead
from smz_jax.macros.precondition.updates import init_head

MACROS = ((1, 2), (2,), (0, 0, 1), (3, 1))
SURE = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]], np.bool_)
"""Of each macro in each of four states, which are numbered by their embedding."""
SETTINGS = MacroConfig(slots=4, max_length=3, head_size=8)


def gate(params, embeddings, actions):
    rows = [MACROS.index(tuple(int(a) for a in row if a >= 0)) for row in actions]
    return SURE[rows, embeddings[:, 0].astype(int)]


def model_of(learned):
    blank = [None] * len(Foresight._fields)
    foresight = Foresight(*blank)._replace(applies=gate)  # type: ignore[arg-type]
    return Model(foresight, None, learned)


def test_a_macro_applies_where_gate_and_head_agree_and_the_head_is_asked_of_owners_only():
    embeddings = np.arange(4, dtype=np.float32)[:, None]
    chance = np.array([[0.9, 0.1], [0.5, 0.2], [0.49, 0.8], [0.7, 0.6]])  # [state, slot]
    asked = []

    def told(rows):
        asked.append(rows)
        return chance

    plain = where_applies(model_of(None), MACROS, embeddings, 3)
    np.testing.assert_array_equal(plain, SURE)
    learned = Learned({(3, 1): 1, (1, 2): 0, (9, 9): 0}, told)
    found = where_applies(model_of(learned), MACROS, embeddings, 3)
    # By hand: (1, 2) has slot 0, states 0, 1, 3 at 0.5 or more; (3, 1) slot 1, states 2, 3.
    expected = [[1, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(found, np.array(expected, np.bool_))
    assert len(asked) == 1 and asked[0] is embeddings
    assert where_applies(model_of(learned), (), embeddings, 3).shape == (0, 4)
    assert len(asked) == 1


def made_head():
    head = init_head(SETTINGS, (6,), jax.random.key(0))
    actions = [[1, 2, -1], [-1, -1, -1], [0, 0, 1], [3, -1, -1]]
    slots = head.slots._replace(
        actions=jnp.array(actions, jnp.int32), length=jnp.array([2, 0, 3, 1], jnp.int32)
    )
    params = head.params["params"]
    output = {
        "kernel": jax.random.normal(jax.random.key(1), params[OUTPUT]["kernel"].shape),
        "bias": jnp.array([0.5, 2.0, -0.25, 0.0], jnp.float32),
    }
    return head._replace(slots=slots, params={"params": {**params, OUTPUT: output}})


def test_what_a_head_is_asked_is_what_its_owners_outputs_say():
    head, config = made_head(), dataclasses.replace(Config(), macro=SETTINGS)
    learned = session.make_learned(head, config)
    assert learned is not None
    # The free slot 1 is nobody's.
    assert learned.slots == {(1, 2): 0, (0, 0, 1): 2, (3,): 3}
    embeddings = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
    logits = np.asarray(PreconditionHead(SETTINGS).apply(head.params, embeddings), np.float64)
    chance = learned.chance(embeddings)
    expected = 1 / (1 + np.exp(-logits)) * [1, 0, 1, 1]
    np.testing.assert_allclose(chance, expected, atol=1e-5)
    assert np.ptp(chance[:, 0]) > 0.01  # it depends on the state
    nobody = head._replace(slots=head.slots._replace(length=jnp.zeros(4, jnp.int32)))
    assert session.make_learned(nobody, config) is None
    assert session.make_learned(None, config) is None


def made_models(learned):
    trained = model_of(learned)._replace(params="trained")
    untrained = model_of(None)._replace(params="untrained")
    return trained, untrained


def test_macros_are_judged_with_a_head_and_again_without_it_and_controls_too():
    learned = Learned({(1, 2): 0, (9, 9): 1}, lambda rows: np.ones((len(rows), 2)))
    names = [REAL, SHUFFLED, RANDOM, UNTRAINED]
    libraries = [Library(name, ((1, 2), (2,)), ("sound",) * 2) for name in names]
    judged = session.judged_by(libraries, *made_models(learned))
    owning = [f"{name}, with the head" for name in (SHUFFLED, RANDOM)]
    assert [library.name for library, _ in judged] == [REAL, CERTAIN, *names[1:], *owning]
    assert all(library.macros == ((1, 2), (2,)) for library, _ in judged[:5])
    assert [model.params for _, model in judged] == [
        *["trained"] * 4,
        "untrained",
        *["trained"] * 2,
    ]
    assert [model.learned is learned for _, model in judged] == [True, *[False] * 4, True, True]
    # Of controls those sequences come again that own a slot.
    assert all(x == Library(x.name, ((1, 2),), ("sound",)) for x, _ in judged[5:])
    assert session.owned_slots(libraries, made_models(learned)[0]) == 1
    plain = session.judged_by(libraries, *made_models(None))
    assert [library.name for library, _ in plain] == names
    assert session.owned_slots(libraries, made_models(None)[0]) is None
    none = [Library(REAL, (), ()), *libraries[1:]]
    assert [x.name for x, _ in session.judged_by(none, *made_models(learned))] == names
