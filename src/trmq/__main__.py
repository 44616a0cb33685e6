"""`python -m trmq` is `trmq`."""

from .cli import main

main()
