"""The floor of the event function: that of HTTP, boto3, and the clients of a bus and a table."""

import boto3.session
import botocore.session
from floor import handler  # type: ignore[import-not-found]  # noqa: F401 - beside it; does nothing either

session = boto3.session.Session(botocore_session=botocore.session.Session(include_builtin_handlers=False))
bus, table = session.client("events"), session.client("dynamodb")
