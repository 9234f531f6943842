"""In which order the lanes of a warp read the bins of their bands, so that they seldom want the same bank at once.

Shared memory has 32 banks of a word each. A warp that reads 32 words takes as many cycles as the busiest bank has
different words to give; a word that several lanes want counts once. The order in which a band is summed is free.
"""

from __future__ import annotations

_BANKS = 32


def schedule(wanted: list[list[int]], steps: int) -> list[list[int | None]]:
    """For each step, which of its words each lane reads, as positions in its list; None for nothing.

    Parameters
    ----------
    wanted : list of lists of int
        Words of each lane, at most `steps` of them, all to be read once.
    steps : int
        How many reads there are.

    Returns
    -------
    list of lists
        Shape (steps, lanes).
    """
    left = [dict(enumerate(words)) for words in wanted]
    plan: list[list[int | None]] = []
    for step in range(steps):
        read: dict[int, set[int]] = {}
        row: list[int | None] = [None] * len(wanted)
        # Who has least time to spare chooses first.
        for lane in sorted(range(len(wanted)), key=lambda lane: -len(left[lane])):
            choice = _choose(left[lane], read, must=len(left[lane]) >= steps - step)
            if choice is not None:
                word = left[lane].pop(choice)
                read.setdefault(word % _BANKS, set()).add(word)
                row[lane] = choice
        plan.append(row)
    return plan


def _choose(words: dict[int, int], read: dict[int, set[int]], *, must: bool) -> int | None:
    """A word that costs nothing now, or that costs least if one has to be chosen."""
    best, best_cost = None, None
    for position, word in words.items():
        bank = read.get(word % _BANKS, ())
        cost = 0 if word in bank else len(bank)
        if best_cost is None or cost < best_cost:
            best, best_cost = position, cost
            if word in bank:
                break
    return best if must or best_cost == 0 else None
