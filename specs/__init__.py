"""What "highly available" means, as clauses that run. Imports nothing of trmq, so it can judge any RocketMQ."""
