"""A simulated host: disk, network, clock and dice from one seed, and the `World` that holds many of them.

Only tests and the simulation runner import this room; it is the second implementor of the protocols in `host.py`.
"""
