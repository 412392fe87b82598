"""The stochastic search of one root in plain Python and float64, to compare the engines with.

Written from the papers (Antonoglou et al. 2022, section 4.2 and appendix A; Schrittwieser et al.
2020, appendix B), over the tables of `tests/support/tabular.py`.
"""

import math
from dataclasses import dataclass, field

import numpy as np

C1, C2, EPSILON = 1.25, 19_652.0, 1e-8


@dataclass
class Node:
    place: tuple  # (state,), or (state, action) of a chance node
    value: float  # mean of the returns seen
    priors: np.ndarray  # over the edges
    visits: int = 1
    reward: float = 0.0  # of the edge that leads here
    discount: float = 1.0
    steps: int = 1  # edges of the uncollapsed tree that the edge stands for
    entropy: float = 0.0
    children: dict = field(default_factory=dict)  # edge -> Node

    @property
    def is_chance(self):
        return len(self.place) == 2

    @property
    def q(self):
        return self.reward + self.discount * self.value


def softmax(logits):
    weights = np.exp(logits - np.max(logits))
    return weights / weights.sum()


def entropy_of(probs):
    if len(probs) == 1:
        return 0.0
    return float(-(probs * np.log(probs)).sum() / math.log(len(probs)))


class TwinSearch:
    """`nodes[i + 1]` is what simulation i added: (Node, its parent's number, edge), or None."""

    def __init__(self, tables, state, *, simulations, gamma, invalid=None, max_depth=None,
                 qtransform="siblings", threshold=0.0, ended=None, root_logits=None):  # fmt: skip
        self.tables, self.gamma, self.threshold = tables, gamma, threshold
        self.ended = ended
        self.by_tree = qtransform == "tree"
        self.limit = math.inf if max_depth is None else max_depth
        self.invalid = set() if invalid is None else set(np.flatnonzero(invalid))
        self.bounds = [math.inf, -math.inf]
        self.margin = math.inf  # the least distance by which a choice was made
        self.root = self.decision_node(state)
        if root_logits is not None:  # with the noise of another search
            self.root.priors = softmax(np.asarray(root_logits[: len(self.root.priors)], float))
        for action in self.invalid:
            self.root.priors[action] = 0.0
        self.root.priors /= self.root.priors.sum()
        self.nodes = [(self.root, -1, -1)]
        for _ in range(simulations):
            self.simulate()

    def decision_node(self, state, **edge):
        priors = softmax(self.tables.prior[state])
        return Node((state,), float(self.tables.value[state]), priors, **edge)

    def after_outcome(self, place, outcome, **edge):
        reward = float(self.tables.reward[(*place, outcome)])
        state = int(self.tables.successor[(*place, outcome)])
        discount = self.gamma * (1 if self.ended is None else 1 - self.ended[state])
        return self.decision_node(state, reward=reward, discount=discount, **edge)

    def new_child(self, node, edge, depth):
        if node.is_chance:
            return self.after_outcome(node.place, edge)
        place = (*node.place, edge)
        sigma = softmax(self.tables.chance[place])
        entropy = entropy_of(sigma)
        if entropy < self.threshold and depth + 2 <= self.limit:
            return self.after_outcome(place, int(sigma.argmax()), entropy=entropy, steps=2)
        return self.chance_node(place, sigma, entropy)

    def chance_node(self, place, sigma, entropy):
        return Node(place, float(self.tables.afterstate_value[place]), sigma, entropy=entropy)

    def choose(self, node):
        score = self.outcome_score if node.is_chance else self.action_score
        closed = self.invalid if node is self.root else ()
        edges = [edge for edge in range(len(node.priors)) if edge not in closed]
        scores = sorted((score(node, edge), edge) for edge in edges)
        if len(scores) > 1:
            self.margin = min(self.margin, scores[-1][0] - scores[-2][0])
        return scores[-1][1]

    def outcome_score(self, node, edge):
        child = node.children.get(edge)
        return node.priors[edge] / (1 + (child.visits if child else 0))

    def action_score(self, node, edge):
        child = node.children.get(edge)
        rate = C1 + math.log((node.visits + C2 + 1) / C2)
        bonus = rate * node.priors[edge] * math.sqrt(node.visits)
        if child is None:
            return bonus
        low, high = self.bounds
        if not self.by_tree:
            known = [node.value] + [other.q for other in node.children.values()]
            low, high = min(known), max(known)
        return (child.q - low) / max(high - low, EPSILON) + bonus / (1 + child.visits)

    def simulate(self):
        path, depth, added = [self.root], 0, None
        while added is None:
            node = path[-1]
            if depth >= self.limit:
                node.visits += 1  # a leaf at the limit is looked at once more
                break
            edge = self.choose(node)
            if edge not in node.children:
                node.children[edge] = self.new_child(node, edge, depth)
                added = (node.children[edge], self.number(node), edge)
            path.append(node.children[edge])
            depth += path[-1].steps
        self.nodes.append(added)
        self.back_up(path)

    def number(self, node):
        return next(i for i, entry in enumerate(self.nodes) if entry and entry[0] is node)

    def back_up(self, path):
        ret = path[-1].value
        for parent, child in zip(path[-2::-1], path[:0:-1], strict=True):
            if not parent.is_chance:
                self.bounds = [min(self.bounds[0], child.q), max(self.bounds[1], child.q)]
            ret = child.reward + child.discount * ret
            parent.value = (parent.value * parent.visits + ret) / (parent.visits + 1)
            parent.visits += 1
