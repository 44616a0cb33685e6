"""What is to be done to a cluster and what its operator claims; checked before anything is touched."""

from __future__ import annotations

from enum import StrEnum

import attrs

from trmq.errors import ConfigError
from trmq.wire.names import check_topic

FAULTS = ("kill", "close", "os", "power", "disk", "machine")
"""What the command after --kill may amount to, in the words of `specs.history.Gone`."""
DURATION_MAX = 86_400.0


class Expect(StrEnum):
    """Whose copy SEND_OK speaks of. auto: what the documents say of the role that the broker is configured with."""

    auto = "auto"
    master = "master"
    slave = "slave"


@attrs.frozen(kw_only=True)
class Plan:
    """Seconds are of the wall. A fault begins every `period`; what was struck stays so for `down`, then it is mended."""

    namesrv: str
    topic: str = ""
    duration: float = 30.0
    rate: float = 200.0
    kill: str = ""
    restart: str = ""
    pause: str = ""
    resume: str = ""
    period: float = 10.0
    down: float = 3.0
    fault: str = "kill"
    expect: Expect = Expect.auto
    patience: float = 60.0
    queues: int = 4
    keep: bool = False

    @property
    def has_faults(self) -> bool:
        return bool(self.kill or self.pause)


def check(plan: Plan) -> Plan:
    """Raises `ConfigError` with the one thing that is wrong."""
    for one, other, what in (("kill", "restart", "starts it again"), ("pause", "resume", "lets it go on")):
        if bool(getattr(plan, one)) != bool(getattr(plan, other)):
            given, missing = (one, other) if getattr(plan, one) else (other, one)
            why = f"nothing says what {what}" if missing == other else "nothing says what is done before"
            raise ConfigError(f"--{given} without --{missing}: {why}; give both")
    if not 1 <= plan.duration <= DURATION_MAX:
        raise ConfigError(f"--duration {plan.duration:g}: give 1 to {DURATION_MAX:g} seconds")
    if not 1 <= plan.rate <= 10_000:
        raise ConfigError(f"--rate {plan.rate:g}: give 1 to 10000 messages a second")
    if plan.fault not in FAULTS:
        raise ConfigError(f"--fault {plan.fault}: one of {', '.join(FAULTS)}")
    if plan.down <= 0 or plan.period <= plan.down:
        raise ConfigError(f"--period {plan.period:g} and --down {plan.down:g}: a fault must be over before the next one begins")
    if plan.has_faults and plan.period > plan.duration:
        raise ConfigError(f"--period {plan.period:g}: within --duration {plan.duration:g} no fault would ever begin")
    if plan.fault != "kill" and not plan.kill:
        raise ConfigError(f"--fault {plan.fault} says what --kill amounts to: give --kill and --restart")
    if plan.patience < 1:
        raise ConfigError(f"--patience {plan.patience:g}: give at least 1 second")
    if plan.topic and (problem := check_topic(plan.topic)) is not None:
        raise ConfigError(problem)
    return plan
