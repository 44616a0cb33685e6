"""P-Q-1 and P-Q-2 as judges: what a first attempt and a retry may do, told in a few words."""

from __future__ import annotations

from specs.clause import REGISTRY
from specs.history import History, Outcome, Tried

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


def first_choice(group: str, began: float, at: float) -> list[bool]:
    tried = Tried("m1", "p", group, 0, 1, writable=BOTH, bad=frozenset("b"), at=at)
    outcome = Outcome("m1", "OK", began, at=at + 1)
    return [held for _, held in REGISTRY["P-Q-2"].check(History((tried, outcome)))]


def test_a_bad_broker_is_nobodys_first_choice() -> None:
    assert first_choice("b", 5.0, 5.0) == [False]
    assert first_choice("a", 5.0, 5.0) == [True]


def test_what_comes_late_may_not_be_the_first_choice() -> None:
    """Seed 256215 of the cores: the good one was cut off, dialled for two seconds, and then reached by another send."""
    assert first_choice("b", 3.0, 5.0) == []
