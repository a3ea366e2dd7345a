"""`make soak`: delivers session timeouts while Tavus, AWS and the function fail in many ways, and accounts for each."""
