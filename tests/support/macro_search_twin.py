"""The search with macro edges in plain Python: both stages, the fold, the guard, both root rules.

Written from docs/planning.md and Danihelka et al. 2022, over `tests/support/search_twin.py`. There
is no noise.
"""

import math

import numpy as np

from smz_jax.search.gumbel import halving_schedule
from tests.support.search_twin import EPSILON, TwinSearch, softmax

MACRO = "macro"
C_VISIT, C_SCALE = 50.0, 0.1


class MacroTwin(TwinSearch):
    """`macros` are sequences; `gains [n, G]` and `certain [n, G]` are what is foretold of them.

    `jump(state, sequence)` gives where it ends, the sum of the rewards and the discount.
    """

    def __init__(self, tables, state, *, macros, gains, certain, jump, agreement, share=0.5,
                 root="puct", interior="puct", **options):  # fmt: skip
        self.macros, self.gains, self.certain, self.jump = macros, gains, certain, jump
        self.agreement, self.share, self.rules = agreement, share, (root, interior)
        self.refused = 0
        simulations, count = options["simulations"], tables.prior.shape[1]
        closed = options.get("invalid")
        considered = count - (0 if closed is None else int(np.sum(closed)))
        self.schedule = halving_schedule(considered, simulations)
        super().__init__(tables, state, **options)

    def decision_node(self, state, **edge):
        node = super().decision_node(state, **edge)
        node.raw, node.macro = node.value, None
        is_root = not hasattr(self, "root")
        fit = [
            slot
            for slot, actions in enumerate(self.macros)
            if self.certain[state, slot] and not (is_root and actions[0] in self.invalid)
        ]
        if fit:
            node.macro = max(fit, key=lambda slot: self.gains[state, slot])
        return node

    def folded(self, node):
        """Visits and Q of the actions, the macro's counted as its first action's."""
        count = len(node.priors)
        children = [node.children.get(action) for action in range(count)]
        visits = [child.visits if child else 0 for child in children]
        values = [child.q if child else 0.0 for child in children]
        child = node.children.get(MACRO)
        if child:
            first = self.macros[node.macro][0]
            total = visits[first] + child.visits
            values[first] = visits[first] * values[first] + child.visits * child.q
            values[first], visits[first] = values[first] / total, total
        return visits, values

    def puct(self, node, priors, visits, values, node_visits, low=math.inf, high=-math.inf):
        known = [q for n, q in zip(visits, values, strict=True) if n] + [node.value]
        low, high = min(low, *known), max(high, *known)
        if self.by_tree:
            low, high = self.bounds
        rate = 1.25 + math.log((node_visits + 19_653.0) / 19_652.0)
        scores = []
        for prior, n, q in zip(priors, visits, values, strict=True):
            scaled = (q - low) / max(high - low, EPSILON) if n else 0.0
            scores.append(scaled + rate * prior * math.sqrt(node_visits) / (1 + n))
        return scores

    @staticmethod
    def completed(node, priors, visits, values):
        total = sum(visits)
        seen = [(p, q) for p, n, q in zip(priors, visits, values, strict=True) if n]
        weight = sum(p for p, _ in seen)
        mean = sum(p * q for p, q in seen) / weight if seen else 0.0
        mixed = (node.raw + total * mean) / (total + 1)
        full = [q if n else mixed for n, q in zip(visits, values, strict=True)]
        low, high = min(full), max(full)
        rate = (C_VISIT + max(visits)) * C_SCALE
        return [rate * (q - low) / max(high - low, EPSILON) for q in full]

    def interior(self, node, priors, visits, values):
        improved = softmax(np.log(priors) + self.completed(node, priors, visits, values))
        return [p - n / (1 + sum(visits)) for p, n in zip(improved, visits, strict=True)]

    def best(self, scores):
        ordered = sorted(scores)
        if len(scores) > 1 and ordered[-1] > -math.inf:
            self.margin = min(self.margin, ordered[-1] - ordered[-2])
        return int(np.argmax(scores))

    def choose(self, node):
        if node.is_chance:
            return super().choose(node)
        visits, values = self.folded(node)
        root, interior = self.rules
        if node is self.root and root == "gumbel":
            with np.errstate(divide="ignore"):
                scores = np.log(node.priors) + self.completed(node, node.priors, visits, values)
            wanted = self.schedule[node.visits - 1]
            scores = [x if n == wanted else -math.inf for n, x in zip(visits, scores, strict=True)]
        elif interior == "gumbel":
            scores = self.interior(node, node.priors, visits, values)
        else:
            scores = self.puct(node, node.priors, visits, values, node.visits)
        if node is self.root:
            scores = [-math.inf if a in self.invalid else x for a, x in enumerate(scores)]
        chosen = self.best(scores)
        if node.macro is None or self.macros[node.macro][0] != chosen:
            return chosen
        arms = [node.children.get(chosen), node.children.get(MACRO)]
        priors = [1 - self.share, self.share]
        counts = [child.visits if child else 0 for child in arms]
        means = [child.q if child else 0.0 for child in arms]
        if interior == "gumbel":
            two = self.interior(node, np.array(priors), counts, means)
        else:
            known = [q for n, q in zip(visits, values, strict=True) if n] or [node.value]
            given = visits[chosen] + 1, min(known), max(known)
            two = self.puct(node, priors, counts, means, *given)
        if counts != [0, 0]:  # equal ones before any visit: the action goes first
            self.margin = min(self.margin, abs(two[1] - two[0]))
        return MACRO if two[1] > two[0] else chosen

    def new_child(self, node, edge, depth):
        if edge != MACRO:
            return super().new_child(node, edge, depth)
        state, reward, discount = self.jump(node.place[0], self.macros[node.macro])
        child = self.decision_node(state, reward=reward, discount=discount, steps=2)
        gained = child.q - node.raw
        off = abs(gained - self.gains[node.place[0], node.macro]) - self.agreement
        self.margin = min(self.margin, abs(off))
        return child if off <= 0 else None

    def simulate(self):
        path, added = [self.root], None
        while added is None:
            node = path[-1]
            edge = self.choose(node)
            if edge not in node.children:
                child = self.new_child(node, edge, 0)
                if child is None:  # refused: nothing of it stays
                    node.macro, self.refused = None, self.refused + 1
                    self.nodes.append(None)
                    return
                node.children[edge] = child
                added = child, self.number(node), edge
            path.append(node.children[edge])
        self.nodes.append(added)
        self.back_up(path)

    def decide(self):
        """The policy target of the root."""
        visits, values = self.folded(self.root)
        if self.rules[0] == "puct":
            return np.array(visits) / sum(visits)
        priors = self.root.priors
        with np.errstate(divide="ignore"):
            return softmax(np.log(priors) + self.completed(self.root, priors, visits, values))
