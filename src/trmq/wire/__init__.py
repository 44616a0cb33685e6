"""Bytes to commands and back, without I/O: frames, headers, bodies, names and ids of the remoting protocol."""
