"""What stands in for the world on one machine: a Tavus, a local AWS and Lambda's own runtime."""
