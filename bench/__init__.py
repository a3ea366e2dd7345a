"""`make bench`: what the function costs on one machine, beside its floor and beside what people usually write."""
