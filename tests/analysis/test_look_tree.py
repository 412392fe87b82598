"""Search trees: chains of certain transitions, and what the drawing of one says."""

from collections import Counter

import matplotlib.colors as colours
import numpy as np

from smz_jax.analysis.view.tree_figure import (
    PALE,
    Chain,
    SmallTree,
    TreeDecision,
    best_chain,
    certain_nodes,
    chains,
    kept_nodes,
    layout,
    most_visited_path,
    tree_figure,
    why_it_ends,
)
from smz_jax.report.style import GREEN, GREY, plot_text
from smz_jax.storage.documents.macro_form import fold
from tests.macros.test_macro_listing import FOUR
from tests.support.look_parts import texts


def small_tree(parent, edge, chance, entropy, visits=None):
    visits = np.ones(len(parent), np.int64) if visits is None else np.array(visits)
    fields = (np.array(parent), np.array(edge), visits, np.array(chance, bool))
    return SmallTree(*fields, np.array(entropy, np.float64), num_actions=4)


# root 0 -RIGHT-> chance 1 -> 2 -FIRE-> chance 3 -> 4; 2 -LEFT, collapsed-> 5; root -NOOP-> chance 6
TREE = small_tree(
    parent=[-1, 0, 1, 2, 3, 2, 0, 6],
    edge=[-1, 2, 4, 1, 5, 3, 0, 4],
    chance=[0, 1, 0, 1, 0, 0, 1, 0],
    entropy=[0, 0.1, 0, 0.2, 0, 0.05, 0.9, 0],
    visits=[20, 12, 11, 6, 5, 3, 4, 3],
)


def test_chains_by_hand():
    found = {chain.nodes[-1]: chain for chain in chains(TREE, 0.4, 6)}
    assert set(found) == {2, 4, 5}  # 7 follows an uncertain transition
    assert found[4] == Chain((0, 1, 2, 3, 4), (2, 1), (0.1, 0.2))
    assert found[5] == Chain((0, 1, 2, 5), (2, 3), (0.1, 0.05))  # no chance node in between
    assert {c.nodes[-1]: c.actions for c in chains(TREE, 0.4, 1)} == {2: (2,), 4: (1,), 5: (3,)}
    assert {c.actions for c in chains(TREE, 0.15, 6)} == {(2,), (2, 3)}
    best = best_chain(TREE, 0.4, 6, set())
    assert best is not None and best.actions == (2, 1)  # as long as the other, searched more
    best = best_chain(TREE, 0.4, 6, {(2, 3)})
    assert best is not None and best.actions == (2, 3)
    assert best_chain(TREE, 0.01, 6, set()) is None


def test_why_a_chain_ends_by_hand():
    """From node 4 nothing was searched; from node 2 on it goes, surely or not, by the threshold."""
    whole, part = Chain((0, 1, 2, 3, 4), (2, 1), (0.1, 0.2)), Chain((0, 1, 2), (2,), (0.1,))
    assert why_it_ends(TREE, whole, 0.4, 6) == "leaf: the search went no further"
    assert "entropy from 0.05 over 0.02 on" in why_it_ends(TREE, part, 0.02, 6)
    assert why_it_ends(TREE, part, 0.4, 1) == "a macro has 1 actions at most"
    assert "no known macro is longer" in why_it_ends(TREE, part, 0.4, 6)
    # The same with 5 behind a chance node that was searched no further, and 3 uncertain.
    chance, entropy = TREE.is_chance.copy(), TREE.entropy.copy()
    chance[5], entropy[3] = True, 0.9
    begun = TREE._replace(is_chance=chance, entropy=entropy)
    assert why_it_ends(begun, part, 0.4, 6).startswith("leaf: the search began what is certain")
    one = TREE._replace(visits=np.array([20, 12, 11, 6, 5, 0, 4, 3]))
    assert "entropy 0.20 over 0.1 on" in why_it_ends(one, part, 0.1, 6)


def test_of_known_chains_one_that_an_uncertain_transition_ends_is_shown():
    """Both are known and of two actions; from 4 on it is uncertain, from 5 nothing was searched."""
    longer = small_tree(
        parent=[*TREE.parent, 4],
        edge=[*TREE.edge, 1],
        chance=[*TREE.is_chance, 1],
        entropy=[*TREE.entropy, 0.7],
        visits=[20, 12, 11, 6, 2, 9, 4, 3, 1],
    )
    best = best_chain(longer, 0.4, 6, {(2, 1), (2, 3)})
    assert best is not None and best.actions == (2, 1)
    best = best_chain(longer, 0.8, 6, {(2, 1), (2, 3)})  # nothing is uncertain: visits decide
    assert best is not None and best.actions == (2, 3)
    assert most_visited_path(longer) == [0, 1, 2, 5]
    assert most_visited_path(TREE) == [0, 1, 2, 3, 4]


def random_tree(rng, size):
    parent, chance = [-1], [0]
    for node in range(1, size):
        above = int(rng.integers(node))
        parent.append(above)
        chance.append(0 if chance[above] else int(rng.random() < 0.7))
    edge = [-1, *(int(x) for x in rng.integers(0, 4, size - 1))]
    visits = np.ones(size, np.int64)
    for node in range(size - 1, 0, -1):
        visits[parent[node]] += visits[node]
    return small_tree(parent, edge, chance, rng.random(size), visits)


def test_chains_as_a_walk_from_above_finds_them():
    """The longest chain to a node is the longest of all walks down that end there."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        tree = random_tree(rng, 30)
        best: dict[int, int] = {}

        def walk(node, length, tree=tree, best=best):
            for child in np.flatnonzero(tree.parent == node).tolist():
                ends = (
                    [child]
                    if not tree.is_chance[child]
                    else np.flatnonzero(tree.parent == child).tolist()
                )
                for end in ends:
                    if tree.entropy[child] < 0.6:
                        best[end] = max(best.get(end, 0), length + 1)
                        walk(end, length + 1)

        for start in np.flatnonzero(~tree.is_chance).tolist():
            walk(start, 0)
        assert {c.nodes[-1]: len(c.actions) for c in chains(tree, 0.6, 99)} == best


def test_the_nodes_drawn_are_one_tree_with_the_chain():
    rng = np.random.default_rng(4)
    for _ in range(10):
        tree = random_tree(rng, 100)
        end = int(rng.integers(100))
        kept = kept_nodes(tree, (end,), 40)
        assert len(kept) == 40 and end in kept and kept[0] == 0
        assert all(int(tree.parent[node]) in kept for node in kept[1:])
        ancestors = {end}
        while (end := int(tree.parent[end])) >= 0:
            ancestors.add(end)
        least = min(tree.visits[node] for node in set(kept) - ancestors)
        assert all(tree.visits[node] <= least for node in set(range(100)) - set(kept))
        places = layout({n: int(tree.parent[n]) for n in kept[1:]}, kept)
        assert len(set(places.values())) == 40
        for node in kept[1:]:
            assert places[node][0] == places[int(tree.parent[node])][0] + 1
        leaves = [n for n in kept if n not in {int(tree.parent[x]) for x in kept[1:]}]
        assert sorted(places[n][1] for n in leaves) == list(range(len(leaves)))


def test_the_tree_figure_marks_its_chain():
    chain = best_chain(TREE, 0.4, 6, set())
    assert chain is not None
    figure = tree_figure(TreeDecision(2, 7, TREE, chain), FOUR, tree_threshold=0.4)
    said = " | ".join(texts(figure))
    assert "RIGHT → FIRE" in said and "game 2, step 7" in said and "all 8 nodes" in said
    assert "the chain is not in the library" in said and "root, 20 visits" in said
    (axes,) = figure.axes

    def by_colour(found):
        return Counter(colours.to_hex(each).upper() for each in found)

    # Only the chain's four edges have a colour; but for them 2 to 5 is certain, 6 and 7 are not.
    assert by_colour(x.get_color() for x in axes.lines) == {GREEN.upper(): 4, PALE: 3}
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert by_colour(x.get_color() for x in dotted) == {PALE: 2}
    round_, square, hollow, ring = axes.collections
    sizes = [len(x.get_offsets()) for x in (round_, square, hollow, ring)]
    assert sizes == [5, 1, 2, 1]  # 6 is an uncertain chance node, 1 and 3 are certain ones
    assert by_colour(round_.get_facecolors()) == {GREEN.upper(): 3, GREY.upper(): 2}
    assert by_colour(hollow.get_facecolors()) == {"#FFFFFF": 1}
    assert by_colour(hollow.get_edgecolors()) == {GREEN.upper(): 2}
    assert max(hollow.get_sizes()) < min(square.get_sizes())
    assert "the chain ends: leaf: the search went no further" in said
    (end,) = ring.get_offsets()
    assert tuple(end) == tuple(round_.get_offsets()[[0, 2, 4, 5, 7].index(4)])
    bold = [x.get_text() for x in axes.texts if x.get_fontweight() == "bold"]
    assert sorted(bold) == ["FIRE", "RIGHT"]
    # The chain is the most visited path; nothing was searched from its end.
    numbers = [x.get_text() for x in axes.texts if x.get_text().startswith("0.")]
    assert sorted(numbers) == ["0.10", "0.20"]
    other = Chain((0, 1, 2), (2,), (0.1,))
    figure = tree_figure(TreeDecision(2, 7, TREE, other), FOUR, tree_threshold=0.4)
    numbers = [x.get_text() for x in figure.axes[0].texts if x.get_text().startswith("0.")]
    assert sorted(numbers) == ["0.05", "0.10", "0.20"]  # and what was searched from node 2
    assert certain_nodes(TREE, 0.4) == {1, 2, 3, 4, 5}
    few = tree_figure(TreeDecision(1, 0, TREE, chain), FOUR, tree_threshold=0.4, most=6)
    assert "6 of 8 nodes" in " ".join(texts(few)) and len(few.axes[0].lines) == 5


def test_the_tree_figure_names_the_macro_on_its_edge():
    """Edge 4 of a decision node is its macro's, of a chance node its first outcome."""
    macro = np.full((8, 3), -1)
    macro[2, :2] = 1, 1
    edge = TREE.edge.copy()
    edge[5] = 4  # from node 2
    tree = TREE._replace(macro=macro, edge=edge, entropy=np.where(np.arange(8) == 5, 2.0, 0.5))
    assert [tree.by_macro(node) for node in range(1, 8)] == [node == 5 for node in range(1, 8)]
    figure = tree_figure(TreeDecision(0, 7, tree, Chain((0,), (), ())), FOUR, tree_threshold=0.4)
    said = texts(figure)
    assert plot_text(fold([FOUR["action_names"][1]] * 2)) in said, said
    assert any("a macro, by one jump" in x for x in said)
    plain = tree_figure(TreeDecision(0, 7, TREE, Chain((0,), (), ())), FOUR, tree_threshold=0.4)
    assert not any("a macro, by one jump" in x for x in texts(plain))
