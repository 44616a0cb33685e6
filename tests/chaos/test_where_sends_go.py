"""P-Q-1 as a judge: what a retry may do, told in a few attempts."""

from __future__ import annotations

from specs.clause import REGISTRY
from specs.history import History, Tried

BOTH = {"a": 2, "b": 2}


def attempt(group: str, number: int, *bad: str, queue: int = 0) -> Tried:
    return Tried("m1", "p", group, queue, number, writable=BOTH, bad=frozenset(bad))


def judged(*attempts: Tried) -> list[bool]:
    return [held for _, held in REGISTRY["P-Q-1"].check(History(attempts))]


def test_a_retry_goes_to_the_other_broker() -> None:
    assert judged(attempt("a", 1), attempt("b", 2)) == [True, True]
    assert judged(attempt("a", 1), attempt("a", 2)) == [True, False]


def test_that_the_failed_one_is_known_to_be_bad_is_no_excuse_to_stay_with_it() -> None:
    assert judged(attempt("a", 1), attempt("a", 2, "a")) == [True, False]


def test_it_comes_back_when_the_other_cannot_be_reached() -> None:
    """Dialling that was no attempt that anybody saw; that it is known to be bad was seen."""
    assert judged(attempt("a", 1), attempt("a", 2, "b")) == [True, True]
    assert judged(attempt("a", 1), attempt("a", 2, "a", "b")) == [True, True]


def test_a_bad_one_may_be_tried_all_the_same() -> None:
    assert judged(attempt("a", 1), attempt("b", 2, "b"), attempt("a", 3, "b")) == [True, True, True]


def test_no_queue_beyond_those_that_are_writable_whatever_is_bad() -> None:
    assert judged(attempt("a", 1), attempt("a", 2, "b", queue=2)) == [True, False]
