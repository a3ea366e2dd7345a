"""What an operator of a deployed stack runs by hand or from a schedule."""
