"""AWS behind one method each: the event bus, the table of ended conversations, and the schedules."""
