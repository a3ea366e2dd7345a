"""`make soak`: sends session timeouts while Tavus, AWS and the function fail in many ways, and checks all outcomes."""
