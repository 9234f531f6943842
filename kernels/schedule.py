"""The order in which the lanes of a warp read the bins of their bands, chosen to avoid bank conflicts.

Shared memory has 32 banks, one word wide. When a warp reads 32 words, it takes as many cycles as different words are
read from the busiest bank; a word that several lanes read counts once. A band may be summed in any order.
"""

from __future__ import annotations

_BANKS = 32


def schedule(words: list[list[int]], steps: int) -> list[list[int | None]]:
    """Return which of its words each lane reads at each step, as an index into its list; None for no read.

    Parameters
    ----------
    words : list of lists of int
        Addresses of the words that each lane must read, each once; at most `steps` per lane.
    steps : int
        Number of steps; each lane reads at most one word per step.

    Returns
    -------
    list of lists
        Shape (steps, lanes).
    """
    left = [dict(enumerate(lane_words)) for lane_words in words]
    plan: list[list[int | None]] = []
    for step in range(steps):
        read: dict[int, set[int]] = {}
        row: list[int | None] = [None] * len(words)
        # The lane with the most words left chooses first.
        for lane in sorted(range(len(words)), key=lambda lane: -len(left[lane])):
            choice = _choose(left[lane], read, must=len(left[lane]) >= steps - step)
            if choice is not None:
                word = left[lane].pop(choice)
                read.setdefault(word % _BANKS, set()).add(word)
                row[lane] = choice
        plan.append(row)
    return plan


def _choose(words: dict[int, int], read: dict[int, set[int]], *, must: bool) -> int | None:
    """Return the index of a word without a bank conflict; None if there is none, or the cheapest if `must`."""
    best, best_cost = None, None
    for position, word in words.items():
        bank = read.get(word % _BANKS, ())
        cost = 0 if word in bank else len(bank)
        if best_cost is None or cost < best_cost:
            best, best_cost = position, cost
            if word in bank:
                break
    return best if must or best_cost == 0 else None
