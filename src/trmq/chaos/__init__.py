"""The laboratory: whole clusters in one simulated world, everything that can go wrong with them, and what became of it as a history.

A `Scenario` says what is deployed, what happens and when; `atlas` draws one from a seed. `heap` plays it with the pure cores on a heap
of events (search), `shell` with the shipped servers and clients on Trio (confirm). Both give a `Run`, whose history is judged by the
clauses of `specs`.
"""
