"""`make soak`: delivers session timeouts while Tavus fails in many ways, and accounts for each of them."""
