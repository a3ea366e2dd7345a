"""Builds the functions and releases, deploys a stack and checks it."""
