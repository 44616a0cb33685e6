"""The broker: stores what producers send, answers what consumers ask, keeps topics, groups and offsets.

Pure tables (topics, groups, offsets, clients, locks, holds, acks) and plain handler functions do the work;
`service.Broker` is the Trio shell that owns them and runs the few background tasks.
"""
