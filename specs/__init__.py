"""What "highly available" means, as clauses that run. Imports nothing of trmq, so it can judge any RocketMQ.

`python -m specs` prints the manual (`specs/README.md`) from the clauses.
"""

from . import dispatch, flush, log_format, recovery

PAGES = (log_format, flush, recovery, dispatch)
