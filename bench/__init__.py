"""`make bench`: measures the function on one machine, next to a floor and to the usual way to write it."""
