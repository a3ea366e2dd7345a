"""`make dashboard`: draws the template's dashboard into docs/dashboard.png, with the metrics of a short chaos run.

The functions' metrics come from their logs. The local SQS has no metrics, so messages are counted every second.
Lambda's own metrics are left out, because the local AWS misses the errors of asynchronous invocations.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean, quantiles
from threading import Event
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from local.process import ROOT, ProcessFailed, interrupt_once
from local.session import DEPLOYMENT_ID, end_path, log, send, timeout_path
from local.soak.faulty_aws import FaultyAws
from local.soak.faulty_tavus import FaultyTavus
from local.soak.killer import Killer
from local.soak.storm import Storm
from local.stack import deployed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from local.stack import Stack

PICTURE = ROOT / "docs/dashboard.png"
SESSION_TIMEOUTS, REQUESTS = 200, 60
BIN_SECONDS = 5
SEED = 1
# The attribute of a queue that each of SQS' metrics reports.
ATTRIBUTES = {
    "ApproximateNumberOfMessagesVisible": "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible": "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed": "ApproximateNumberOfMessagesDelayed",
}
STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Average": fmean,
    "Maximum": max,
    "p50": lambda values: quantiles([*values, *values], n=100, method="inclusive")[49],
    "p99": lambda values: quantiles([*values, *values], n=100, method="inclusive")[98],
}

type Metric = tuple[str, ...]  # its namespace, its name, and the names and values of its dimensions
type Points = dict[Metric, list[tuple[float, float]]]  # times and values


def main() -> None:
    """Run and draw. Exits 1, with the reason, if something does not start."""
    interrupt_once()
    try:
        picture = run()
    except ProcessFailed as error:
        sys.exit(f"\nFailed: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    picture.savefig(PICTURE, dpi=100)
    print(f"The picture is in {PICTURE.relative_to(ROOT)}.")


def run() -> Figure:
    """Send session timeouts and requests while Tavus, AWS and the functions fail. Returns the dashboard afterwards."""
    ids = [f"c{number:04}" for number in range(SESSION_TIMEOUTS + REQUESTS)]
    killer, over, points = Killer(SEED), Event(), defaultdict[Metric, list[tuple[float, float]]](list)
    with FaultyTavus(SEED, ids, killer.kill_sender) as tavus, deployed(tavus.url, DEPLOYMENT_ID) as stack:
        for conversation_id in random.Random(SEED).sample(ids, len(ids) * 9 // 10):  # noqa: S311 - must be reproducible
            tavus.start(DEPLOYMENT_ID, conversation_id)
        widgets, start = list(dashboard(stack)), time.time()
        with FaultyAws(SEED, stack.endpoint_url, tavus.recorded_then_doubtful) as aws, ThreadPoolExecutor() as pool:
            storm = Storm(stack, aws.url)
            work = [pool.submit(count_messages, stack, over, points)]
            for number, conversation_id in enumerate(ids[SESSION_TIMEOUTS:]):
                work.append(pool.submit(send_requests, stack, number, conversation_id))
            try:
                with killer:
                    seconds = storm.run(ids[:SESSION_TIMEOUTS])
            finally:
                over.set()
            for each in work:
                each.result()
        read_metrics(stack, points)
    return draw(widgets, points, start, seconds)


def send_requests(stack: Stack, number: int, conversation_id: str) -> None:
    """Limit one conversation, and end it. Every tenth limit and end is invalid."""
    time.sleep(1)
    send(stack, "PUT", timeout_path(DEPLOYMENT_ID, conversation_id, 3600 if number % 10 else 1))
    send(stack, "POST", end_path(DEPLOYMENT_ID, conversation_id if (number + 5) % 10 else "not.an.id"))


def count_messages(stack: Stack, over: Event, points: Points) -> None:
    """Count the messages of both queues every second."""
    sqs, urls = stack.client("sqs"), [stack.outputs[f"{queue}QueueUrl"] for queue in ("Retry", "Failed")]
    while not over.wait(1):
        for url in urls:
            found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            for name, attribute in ATTRIBUTES.items():
                metric = ("AWS/SQS", name, "QueueName", url.rpartition("/")[2])
                points[metric].append((time.time(), float(found[attribute])))


def read_metrics(stack: Stack, points: Points) -> None:
    """Read the functions' metrics from their logs."""
    for group in ("HttpLogGroupName", "EventLogGroupName", "TimerLogGroupName"):
        for line in (json.loads(text) for text in log(stack, group) if text.startswith('{"_aws"')):
            service = ("service", line["service"], "trigger", line["trigger"])
            for directive in line["_aws"]["CloudWatchMetrics"]:
                for name in (metric["Name"] for metric in directive["Metrics"]):
                    values = line[name] if isinstance(line[name], list) else [line[name]]
                    points[directive["Namespace"], name, *service] += [
                        (line["_aws"]["Timestamp"] / 1000, value) for value in values
                    ]


def dashboard(stack: Stack) -> Iterator[dict[str, Any]]:
    """Return the properties of the widgets in template.yaml, with the names of this stack."""
    [body] = re.findall(r"DashboardBody: !Sub \|\n((?: {8}.*\n)+)", (ROOT / "template.yaml").read_text())
    names = {f"{name}Function": stack.outputs[f"{name}FunctionName"] for name in ("Http", "Event", "Timer")}
    for queue in ("RetryQueue", "FailedQueue"):
        names[f"{queue}.QueueName"] = stack.outputs[f"{queue}Url"].rpartition("/")[2]
    names |= {"AWS::StackName": "end-conversation", "AWS::Region": "us-east-1"}
    for widget in json.loads(re.sub(r"\$\{([^}]+)\}", lambda found: names[found[1]], body))["widgets"]:
        yield widget["properties"]


def lines_of(widget: dict[str, Any]) -> Iterator[tuple[Metric, str]]:
    """Return each metric of a widget, written in full, with its statistic."""
    before: list[str] = []
    for line in widget["metrics"]:
        options = line[-1] if isinstance(line[-1], dict) else {}
        parts = [part for part in line if part is not line[-1] or not options]
        if parts[0] == "...":
            parts = [*before[: len(before) - len(parts) + 1], *parts[1:]]
        before = [before[place] if part == "." else part for place, part in enumerate(parts)]
        yield tuple(before), options.get("stat") or widget["stat"]


def draw(widgets: Iterable[dict[str, Any]], points: Points, start: float, seconds: float) -> Figure:
    """Draw every widget. One point of a line is the statistic of a few seconds."""
    figure = Figure(figsize=(14, 12), layout="constrained")
    figure.suptitle(
        f"A local run in compressed time: {SESSION_TIMEOUTS} session timeouts, {REQUESTS} ends and {REQUESTS} limits "
        f"in {seconds:.0f} s,\nwhile Tavus and AWS fail. A point is {BIN_SECONDS} s, and 1 or 5 minutes in CloudWatch."
    )
    for axes, widget in zip(figure.subplots(3, 2).flat, widgets, strict=True):
        axes.set_title(widget["title"], loc="left", fontsize=11)
        axes.set_xlabel("seconds", fontsize=8)
        for metric, statistic in lines_of(widget):
            label = " ".join([metric[1], re.sub("end-conversation-|-[0-9A-F]+$", "", metric[-1]), statistic])
            bins = defaultdict[int, list[float]](list)
            for at, value in points.get(metric, []):
                bins[int(at // BIN_SECONDS - start // BIN_SECONDS) * BIN_SECONDS].append(value)
            drawn = {second: STATISTICS[statistic](values) for second, values in sorted(bins.items())}
            if not drawn:
                label += ": not measured locally" if metric[0] == "AWS/Lambda" else ": none in this run"
            axes.plot(drawn.keys(), drawn.values(), ".-", label=label)
        axes.legend(fontsize=7)
        axes.set_xlim(0, seconds)
        axes.set_ylim(bottom=0)
    return figure


if __name__ == "__main__":
    main()
