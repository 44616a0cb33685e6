"""L4: lives of real clusters. The installed program, its processes, sockets and files; faults that a machine really has."""
