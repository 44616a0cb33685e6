"""May this slave follow? What a master answers to a log that ends here and whose last bytes have this digest.

Upholds P-HA-1: two logs that are not one the beginning of the other never come together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Verdict = Literal["follow", "longer", "diverged"]


def consent(min_phy: int, max_phy: int, end: int, tail_size: int, same: Callable[[], bool]) -> Verdict:
    """About a slave whose log ends at `end`; `same` says whether the `tail_size` bytes before that are this log's too. It is asked only
    where this log [min_phy, max_phy) has them all.

    pre: 0 <= min_phy <= max_phy and 0 <= tail_size <= end
    post: implies(end > max_phy, __return__ == "longer")
    """
    if end > max_phy:
        return "longer"
    if min_phy <= end - tail_size < end and not same():
        return "diverged"
    return "follow"
