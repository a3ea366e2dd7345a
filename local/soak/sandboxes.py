"""Kills sandboxes, as Lambda does when a host fails or memory runs out."""

from __future__ import annotations

from contextlib import suppress

import psutil


def kill_sandbox(port: int) -> None:
    """Kill the sandbox that has a connection from this TCP port. It waits for an answer, so it does nothing else."""
    (supervisor,) = psutil.Process().children()  # the soak test keeps no other process running
    (local_aws,) = supervisor.children()
    for sandbox in local_aws.children():
        with suppress(psutil.Error):
            if port in (connection.laddr[1] for connection in sandbox.net_connections("tcp4")):
                sandbox.kill()
