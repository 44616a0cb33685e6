"""From a scenario that breaks something to a short one that breaks the same thing.

First steps are left out, in halves and then in ever smaller pieces (ddmin); then what is left is made plainer: fewer messages, rounder
numbers, shorter waits; and again, until nothing helps. Whatever is tried is a scenario by itself and is played from its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from trmq.chaos.scenario import VERBS, Scenario, Step, check
from trmq.errors import ConfigError

Fails = Callable[[Scenario], bool]
GAPS = (0.0, 0.001, 0.01, 0.1, 1.0, 5.0, 20.0)
NUMBERS = ("0", "1", "2", "5", "100")


class Shrinker:
    """`fails` says whether a scenario still breaks the same thing; it is asked at most `tries` times."""

    def __init__(self, scenario: Scenario, fails: Fails, tries: int = 400) -> None:
        self.best = scenario
        self.fails, self.left = fails, tries
        self.known: set[str] = {scenario.render()}

    def shrink(self) -> Scenario:
        before = None
        while before != self.best and self.left:
            before = self.best
            self.fewer_steps()
            self.plainer_steps()
        return self.best

    def better(self, scenario: Scenario) -> bool:
        """Whether it fails, too; then it is the best one now."""
        text = scenario.render()
        if text in self.known or not self.left or not possible(scenario):
            return False
        self.known.add(text)
        self.left -= 1
        if self.fails(scenario):
            self.best = scenario
            return True
        return False

    def fewer_steps(self) -> None:
        size = max(1, len(self.best.steps) // 2)
        while size:
            at = 0
            while at < len(self.best.steps):
                steps = self.best.steps
                if not self.better(self.best.with_steps(steps[:at] + steps[at + size :])):
                    at += size
            size //= 2

    def plainer_steps(self) -> None:
        for at in range(len(self.best.steps)):
            for tried in self.plainer(at):
                if self.better(tried):
                    break
            for gap in GAPS:
                if self.better(self.sooner(at, gap)):
                    break

    def plainer(self, at: int) -> Iterator[Scenario]:
        step = self.best.steps[at]
        for number, kind in enumerate(VERBS[step.verb]):
            for value in NUMBERS if kind in ("count", "seconds", "number") else ():
                if abs(float(value)) < abs(float(step.args[number])):
                    args = (*step.args[:number], value, *step.args[number + 1 :])
                    yield self.replaced(at, attrs.evolve(step, args=args))

    def replaced(self, at: int, step: Step) -> Scenario:
        return self.best.with_steps((*self.best.steps[:at], step, *self.best.steps[at + 1 :]))

    def sooner(self, at: int, gap: float) -> Scenario:
        """The step, and with it all later ones, `gap` seconds after the one before it, if that is sooner."""
        steps = self.best.steps
        began = steps[at - 1].at if at else 0.0
        gain = steps[at].at - began - gap
        if gain <= 0:
            return self.best
        return self.best.with_steps((*steps[:at], *(attrs.evolve(step, at=round(step.at - gain, 3)) for step in steps[at:])))


def possible(scenario: Scenario) -> bool:
    try:
        check(scenario)
    except ConfigError:
        return False
    return True


def shrink(scenario: Scenario, fails: Fails, tries: int = 400) -> Scenario:
    return Shrinker(scenario, fails, tries).shrink()
