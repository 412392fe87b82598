"""How many bits it takes to write down play, without and with a library of phrases.

The code, exactly. Play is a list of pieces (uninterrupted stretches of actions, A actions); the
lengths of the pieces, in actions, are known to both sides. A library is K distinct phrases of 2 to
8 actions. Play is rewritten as symbols, each an action or a phrase, no phrase across a border, and
the sequence of n symbols of all pieces is sent by the adaptive code of Krichevsky and Trofimov
(1981): a symbol that was seen c times among the i symbols before it costs

    -log2((c + 1/2) / (i + (A + K) / 2)) bits,

which needs no table of frequencies and whose sum depends on the counts alone. The dictionary is
sent first: for each phrase its length (one of 2..8, or "no more": 3 bits) and its spelling (length
x log2 A bits), and the closing "no more". The empty library pays these 3 bits too.

Which of the many rewritings is sent: the one of the fewest symbols, then the cheapest one under
the costs that the counts of the former imply, again and again; the best of these, or of plain play.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from smz_jax.config.check import require
from smz_jax.macros.mine.keys import MAX_LENGTH, check_num_actions

MIN_LENGTH = 2
LENGTH_BITS = 3.0
"""One of eight: a length in 2..8, or the dictionary's end."""

BORDER = b"\0"
"""Follows each piece in a text; an action is the byte `action + 1`, as in the keys."""

ROUNDS = 4
WORTH_A_ROUND = 1e-3
UNIT = 1 << 16

Phrase = tuple[int, ...]


class Piece(NamedTuple):
    """Text that counts `weight` times."""

    text: bytes
    weight: int


class Parse(NamedTuple):
    """One rewriting of all pieces."""

    symbols: list[list[bytes]]  # of each piece, in order, borders left out of `counts` only
    counts: Counter[bytes]
    bits: float  # of the symbols; the dictionary apart


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Play under a fixed library, measured in bits. Ratios over no actions are 0."""

    actions: int
    """Actions of play."""
    symbols: int
    """Symbols that play was rewritten as."""
    play_bits: float
    """Bits of these symbols."""
    dictionary_bits: float
    """Bits of the library."""
    plain_bits: float
    """Bits of the same play under the empty library, its dictionary included."""
    uses: tuple[int, ...]
    """How often each phrase was used, in the order of the library."""
    covered: int
    """Actions inside phrases."""

    @property
    def bits(self) -> float:
        """Play and dictionary."""
        return self.play_bits + self.dictionary_bits

    @property
    def bits_per_action(self) -> float:
        """With the library, its dictionary included."""
        return self.bits / self.actions if self.actions else 0.0

    @property
    def plain_bits_per_action(self) -> float:
        """Without the library."""
        return self.plain_bits / self.actions if self.actions else 0.0

    @property
    def saved_per_action(self) -> float:
        """Bits per action that the library saves, its dictionary paid; negative if it costs."""
        return self.plain_bits_per_action - self.bits_per_action

    @property
    def coverage(self) -> float:
        """Share of the actions that lie inside phrases."""
        return self.covered / self.actions if self.actions else 0.0


def to_text(actions: Sequence[int]) -> bytes:
    """Actions as bytes, `action + 1` each."""
    return bytes(action + 1 for action in actions)


def to_phrase(text: bytes) -> Phrase:
    """The actions of a text without borders."""
    return tuple(byte - 1 for byte in text)


def check_phrases(phrases: Sequence[Sequence[int]], num_actions: int) -> list[bytes]:
    """Checks phrases and packs them.

    Args:
        phrases: distinct action sequences of 2 to 8 actions in 0..A-1.
        num_actions: A, in 1..255.

    Returns:
        Their texts, in order.

    Raises:
        ConfigError: in one line, where a phrase is too short, too long, unknown or given twice.
    """
    check_num_actions(num_actions)
    texts = []
    for phrase in phrases:
        known = all(0 <= action < num_actions for action in phrase)
        fits = MIN_LENGTH <= len(phrase) <= MAX_LENGTH
        allowed = f"{MIN_LENGTH} to {MAX_LENGTH} actions in 0..{num_actions - 1}"
        require(known and fits, "macro", tuple(phrase), allowed)
        texts.append(to_text(phrase))
    for text, count in Counter(texts).items():
        require(count == 1, "macros", f"{to_phrase(text)} {count} times", "distinct")
    return texts


def check_streams(streams: Sequence[np.ndarray], num_actions: int) -> Piece:
    """Checks played actions and joins them, each piece closed by a border.

    Args:
        streams: 1-D integer arrays, actions in 0..A-1.
        num_actions: A, in 1..255.

    Returns:
        One text of weight 1.

    Raises:
        ConfigError: in one line, where an array is not 1-D, not of integers, or out of range.
    """
    check_num_actions(num_actions)
    parts = []
    for index, stream in enumerate(streams):
        actions = np.asarray(stream)
        if actions.size == 0:
            actions = actions.reshape(-1).astype(np.uint8)
        name = f"streams[{index}]"
        shaped = actions.ndim == 1 and actions.dtype.kind in "iu"
        require(shaped, name, f"{actions.dtype} {actions.shape}", "a 1-D array of integers")
        if actions.size:
            low, high = int(actions.min()), int(actions.max())
            allowed = f"in 0..{num_actions - 1}"
            require(low >= 0, name, low, allowed)
            require(high < num_actions, name, high, allowed)
        parts.append((actions.astype(np.uint8) + np.uint8(1)).tobytes() + BORDER)
    return Piece(b"".join(parts), 1)


def symbol_bits(counts: np.ndarray) -> np.ndarray:
    """log2 Gamma(n + 1/2) / Gamma(1/2): what a symbol of count n takes off the code length."""
    return (gammaln(np.asarray(counts, np.float64) + 0.5) - gammaln(0.5)) / np.log(2.0)


def total_bits(total: np.ndarray | float, kinds: np.ndarray | float) -> np.ndarray:
    """log2 Gamma(n + S/2) / Gamma(S/2) of n symbols over an alphabet of S."""
    half = np.asarray(kinds, np.float64) / 2
    return (gammaln(total + half) - gammaln(half)) / np.log(2.0)


def code_bits(counts: Sequence[int], kinds: int) -> float:
    """Length of the Krichevsky-Trofimov code of symbols with these counts.

    Args:
        counts: of each symbol; those left out are 0.
        kinds: size of the alphabet, A + K, at least 1.

    Returns:
        log2 [Gamma(n + S/2) / Gamma(S/2)] - sum_s log2 [Gamma(n_s + 1/2) / Gamma(1/2)], in bits.
    """
    each = np.asarray(counts, np.float64)
    # One kind of symbol alone carries nothing; the two terms leave a rounding error.
    return max(0.0, float(total_bits(each.sum(), kinds) - symbol_bits(each).sum()))


def phrase_bits(length: int, num_actions: int) -> float:
    """Dictionary cost of a phrase: its length and its spelling."""
    return LENGTH_BITS + length * float(np.log2(num_actions))


def dictionary_bits(phrases: Sequence[bytes], num_actions: int) -> float:
    """Dictionary cost of a library, its end included."""
    return LENGTH_BITS + sum(phrase_bits(len(text), num_actions) for text in phrases)


def cheapest(text: bytes, costs: Mapping[bytes, int]) -> list[bytes]:
    """The rewriting of least total cost (Viterbi); ties go to the longer last symbol.

    Args:
        text: actions and borders as bytes.
        costs: of each symbol, whole numbers, so that ties are ties on every machine. Each byte of
            the text must be a symbol.

    Returns:
        Symbols that join to `text`.
    """
    lengths = sorted({len(symbol) for symbol in costs}, reverse=True)
    padded = bytes(MAX_LENGTH) + text
    options_of: dict[bytes, list[tuple[int, int]]] = {}
    best, sizes = [0], []
    for end in range(1, len(text) + 1):
        context = padded[end : end + MAX_LENGTH]
        options = options_of.get(context)
        if options is None:
            endings = [(size, context[MAX_LENGTH - size :]) for size in lengths]
            options = [(size, costs[ending]) for size, ending in endings if ending in costs]
            options_of[context] = options
        size, cost = options[0]
        cost += best[end - size]
        for other, price in options[1:]:
            if best[end - other] + price < cost:
                size, cost = other, best[end - other] + price
        best.append(cost)
        sizes.append(size)
    symbols = []
    end = len(text)
    while end:
        start = end - sizes[end - 1]
        symbols.append(text[start:end])
        end = start
    return symbols[::-1]


def symbol_costs(
    counts: Mapping[bytes, int], phrases: Sequence[bytes], num_actions: int
) -> dict[bytes, int]:
    """What each symbol would cost next, in units of 2^-16 bits, after these counts."""
    symbols = [bytes([action + 1]) for action in range(num_actions)] + list(phrases)
    total = sum(counts[symbol] for symbol in symbols) + len(symbols) / 2
    each = np.array([counts[symbol] for symbol in symbols], np.float64)
    prices = np.rint(UNIT * np.log2(total / (each + 0.5))).astype(np.int64).tolist()
    return {**dict(zip(symbols, prices, strict=True)), BORDER: 0}


def _measure(pieces: Sequence[Piece], symbols: list[list[bytes]], kinds: int) -> Parse:
    counts: Counter[bytes] = Counter()
    for piece, parsed in zip(pieces, symbols, strict=True):
        for symbol, count in Counter(parsed).items():
            counts[symbol] += piece.weight * count
    del counts[BORDER]
    return Parse(symbols, counts, code_bits(list(counts.values()), kinds))


def parse_pieces(pieces: Sequence[Piece], phrases: Sequence[bytes], num_actions: int) -> Parse:
    """Rewrites pieces with a library, as the module says."""
    kinds = num_actions + len(phrases)
    plain = [[piece.text[i : i + 1] for i in range(len(piece.text))] for piece in pieces]
    best = _measure(pieces, plain, kinds)
    if not phrases:
        return best
    costs = {symbol: 1 for symbol in symbol_costs(best.counts, phrases, num_actions)}
    before = np.inf
    for _ in range(ROUNDS):
        found = _measure(pieces, [cheapest(piece.text, costs) for piece in pieces], kinds)
        if found.bits < best.bits:
            best = found
        if found.bits > before * (1 - WORTH_A_ROUND):
            break
        before = found.bits
        costs = symbol_costs(found.counts, phrases, num_actions)
    return best
