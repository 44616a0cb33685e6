"""trmq: Apache RocketMQ high availability in Python on Trio."""
