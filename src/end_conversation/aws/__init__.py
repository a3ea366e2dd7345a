"""What the function uses of AWS: the event bus, the table of ended conversations, the queues and the schedules."""
