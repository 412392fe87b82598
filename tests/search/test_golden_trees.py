"""Searches against stored trees."""

import json

import numpy as np
import pytest

from tests.support.golden_trees import CASES, PATH, grow


@pytest.mark.parametrize("case", CASES)
def test_golden_tree(case):
    stored, grown = json.loads(PATH.read_text())[case], grow(case)
    assert stored.keys() == grown.keys()
    for name, values in stored.items():
        if name in ("node_values", "weights"):
            np.testing.assert_allclose(grown[name], values, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(grown[name], values, err_msg=name)


def test_both_engines_have_the_same_golden_tree():
    stored = json.loads(PATH.read_text())
    for name in ("parents", "action_from_parent", "node_visits", "action"):
        assert stored["mctx"][name] == stored["batched"][name]
    np.testing.assert_allclose(stored["mctx"]["node_values"], stored["batched"]["node_values"])


def test_the_cases_differ():
    parents = {json.dumps(case["parents"]) for case in json.loads(PATH.read_text()).values()}
    assert len(parents) == len(CASES) - 1  # mctx and batched agree
