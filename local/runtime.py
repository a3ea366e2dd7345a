"""AWS Lambda's own Python runtime around a built function, under AWS' Runtime Interface Emulator."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3

from local.build import BUILT
from local.process import AWS_CLIENT, ROOT, Program, clean_environment, free_port, serving

LAMBDA_RUNTIME = (str(ROOT / ".venv-runtime/bin/python"), "-m", "awslambdaric")
ARCHITECTURE = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
EMULATOR = ROOT / f".venv-sam/lib/python3.13/site-packages/samcli/local/rapid/aws-lambda-rie-{ARCHITECTURE}"


@dataclass(frozen=True)
class Sandbox:
    """One sandbox. The first call creates it. It stays warm between calls, and takes one call at a time."""

    url: str
    program: Program

    def invoke(self, event: object) -> Any:
        """What the function returns, or the error that Lambda reports."""
        url = f"{self.url}/2015-03-31/functions/function/invocations"
        return urllib3.request("POST", url, json=event, retries=False, timeout=90).json()

    def log(self) -> str:
        """All that the function and its runtime wrote so far."""
        return self.program.log()


@contextmanager
def sandbox(
    function: str, timeout_seconds: int, handler: str = "end_conversation.handler.handler", **environment: str
) -> Iterator[Sandbox]:
    """Run a sandbox of a built function. `function` is its name in the template."""
    code, port = BUILT / function, free_port()
    variables = clean_environment(
        **AWS_CLIENT,
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512",
        AWS_LAMBDA_FUNCTION_NAME=function,
        AWS_LAMBDA_FUNCTION_TIMEOUT=str(timeout_seconds),
        AWS_REGION=AWS_CLIENT["AWS_DEFAULT_REGION"],
        LAMBDA_TASK_ROOT=str(code),
        **environment,
    )
    emulator = [EMULATOR, "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    emulator += ["--runtime-api-address", f"127.0.0.1:{free_port()}"]
    with serving([*emulator, *LAMBDA_RUNTIME, handler], variables, port, code) as program:
        yield Sandbox(f"http://127.0.0.1:{port}", program)
