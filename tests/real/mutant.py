"""`python -m real.mutant NAME serve ...`: the installed program with one seeded bug of tests/chaos/mutants.py in it."""

from __future__ import annotations

import sys

import pytest

from chaos.mutants import MUTANTS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    MUTANTS[name].seed(pytest.MonkeyPatch())
    from trmq.cli import main

    sys.exit(main())
