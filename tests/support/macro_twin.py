"""Plain-Python twin of the macro extraction: dicts and recursion from the root, no JAX."""

import numpy as np


def is_certain(entropy, reward, threshold):
    return np.float32(entropy) < np.float32(threshold) and bool(np.isfinite(reward))


def windows_ending_at(path, config, threshold):
    """(actions, mean entropy, reward, start bucket) of each window that ends `path`.

    `path` is a list of transitions (start bucket, action, entropy, reward), oldest first.
    """
    for length in range(config.min_length, min(config.max_length, len(path)) + 1):
        window = path[-length:]
        if not all(is_certain(entropy, reward, threshold) for _, _, entropy, reward in window):
            continue
        actions = tuple(int(action) for _, action, _, _ in window)
        if not config.include_repeats and length > 1 and len(set(actions)) == 1:
            continue
        entropy = float(np.mean([float(entropy) for _, _, entropy, _ in window]))
        yield actions, entropy, float(sum(float(reward) for *_, reward in window)), window[0][0]


def tree_windows(tree, buckets, config, least_discount=0):
    """Windows of a batch of trees by descent over the children; and the counts of transitions."""
    children = np.asarray(tree.children_index)
    rewards, discounts = map(np.asarray, (tree.children_rewards, tree.children_discounts))
    visits = np.asarray(tree.node_visits)
    is_chance = np.asarray(tree.embeddings.is_chance)
    entropy = np.asarray(tree.embeddings.entropy)
    buckets = np.asarray(buckets)
    found, seen, certain = [], 0, 0

    def descend(lane, node, path, pending):
        nonlocal seen, certain
        for edge, child in enumerate(children[lane, node]):
            if child < 0:
                continue
            reward = rewards[lane, node, edge]
            if is_chance[lane, child]:
                waiting = (buckets[lane, node], edge, entropy[lane, child])
                descend(lane, child, path, waiting)
                continue
            if pending is not None:
                step = (*pending, reward)
            else:
                step = (buckets[lane, node], edge, entropy[lane, child], reward)
            seen += 1
            certain += is_certain(step[2], step[3], config.tree_threshold)
            longer = [*path, step]
            weight = int(visits[lane, child]) if config.tree_weight == "visits" else 1
            for window in windows_ending_at(longer, config, config.tree_threshold):
                found.append((*window, weight))
            theirs = discounts[lane, node, edge] < least_discount  # the other player's turn
            descend(lane, child, [] if theirs else longer, None)

    for lane in range(children.shape[0]):
        descend(lane, 0, [], None)
    return found, seen, certain


def play_windows(rows, config):
    """Windows of lanes of rows [B, T], whole histories; and the counts of transitions."""
    rows = type(rows)(*(np.asarray(field) for field in rows))
    found, seen, certain = [], 0, 0
    lanes, length = rows.action.shape
    for lane in range(lanes):
        path = []
        for t in range(length - 1):
            if rows.is_first[lane, t + 1]:
                path = []
                continue
            step = tuple(
                field[lane, t] for field in (rows.bucket, rows.action, rows.entropy, rows.reward)
            )
            path.append(step)
            seen += 1
            certain += is_certain(step[2], step[3], config.play_threshold)
            for window in windows_ending_at(path, config, config.play_threshold):
                found.append((*window, 1))
            if rows.discount[lane, t] <= 0:  # an end, or the other player's turn
                path = []
    return found, seen, certain


class Table:
    """Dict of macros with the table's rule for a full house."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.entries = {}
        self.dropped = 0

    def merge(self, windows, played):
        for actions, entropy, reward, bucket, weight in windows:
            entry = self.entries.setdefault(
                actions,
                {"count": 0, "entropy": 0.0, "reward": 0.0, "buckets": set(), "play": 0},
            )
            entry["count"] += weight
            entry["entropy"] += weight * entropy
            entry["reward"] += weight * reward
            entry["buckets"].add(int(bucket))
            entry["play"] += weight if played else 0
        ranked = sorted(
            self.entries, key=lambda actions: (-self.entries[actions]["count"], actions)
        )
        for actions in ranked[self.capacity :]:
            del self.entries[actions]
            self.dropped += 1

    def assert_equals(self, table, buckets=True):
        """Compares with a `MacroTable`: entries in key order, empty slots last."""
        table = type(table)(*(np.asarray(field) for field in table))
        expected = sorted(self.entries)
        filled = int((table.length > 0).sum())
        assert filled == len(expected)
        assert not table.length[filled:].any() and not table.count[filled:].any()
        assert (table.actions[filled:] == -1).all() and not table.buckets[filled:].any()
        assert int(table.dropped) == self.dropped
        for slot, actions in enumerate(expected):
            entry = self.entries[actions]
            length = int(table.length[slot])
            assert tuple(table.actions[slot, :length].tolist()) == actions
            assert (table.actions[slot, length:] == -1).all()
            assert table.count[slot] == entry["count"]
            assert table.play_count[slot] == entry["play"]
            if buckets:
                assert set(np.flatnonzero(table.buckets[slot]).tolist()) == entry["buckets"]
            np.testing.assert_allclose(
                table.entropy_sum[slot], entry["entropy"], rtol=1e-4, atol=1e-4
            )
            np.testing.assert_allclose(
                table.reward_sum[slot], entry["reward"], rtol=1e-4, atol=1e-3
            )


def as_sorted(windows):
    """`PackedWindows` as sorted tuples, the keys read byte by byte."""
    high, low, *fields = (np.asarray(field) for field in windows)
    found = []
    for slot in np.flatnonzero(high):
        key = int(high[slot]).to_bytes(4, "big") + int(low[slot]).to_bytes(4, "big")
        actions = tuple(byte - 1 for byte in key.rstrip(b"\0"))
        found.append((actions, *(field[slot] for field in fields)))
    return rounded(found)


def rounded(found):
    """Windows as sorted tuples whose entropies compare across orders of summation."""
    return sorted((a, round(float(e), 4), float(r), int(b), int(w)) for a, e, r, b, w in found)
