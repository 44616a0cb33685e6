"""Where topics live: the name server's tables, how a producer picks a queue, how consumers share them."""
