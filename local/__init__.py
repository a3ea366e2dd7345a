"""Stand-ins for the outside world on one machine: a Tavus, a local AWS and Lambda's own runtime."""
