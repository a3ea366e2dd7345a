"""AWS behind one method each: the event bus and the table of ended conversations."""
