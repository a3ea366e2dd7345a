"""Each operation that the functions call, with its parameters and the members of an answer."""

from __future__ import annotations

from typing import Any

# One of each partition, and one that botocore does not know yet.
REGIONS = ["us-east-1", "eu-west-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1", "us-isob-east-1", "xx-north-9"]
ITEM = {"conversation": {"S": "d/c"}, "reason": {"NULL": True}, "attempts": {"N": "1"}}
SCHEDULE = {
    "GroupName": "limits",
    "Name": "d-c",
    "Description": "d/c",
    "ScheduleExpression": "at(2026-11-25T08:37:41)",
    "ScheduleExpressionTimezone": "UTC",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "ActionAfterCompletion": "DELETE",
    "State": "ENABLED",
    "Target": {
        "Arn": "arn:queue",
        "RoleArn": "arn:role",
        "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 3600},
        "DeadLetterConfig": {"Arn": "arn:queue"},
        "Input": "{}",
    },
}
# By the name of the method: the service, the parameters, and the answer.
CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "put_events": (
        "events",
        {
            "Entries": [
                {"Source": "s", "DetailType": "d", "Detail": "{}", "EventBusName": "bus", "TraceHeader": "Root=1-2-3"}
            ]
        },
        {"FailedEntryCount": 1, "Entries": [{"EventId": "1", "ErrorCode": "InternalFailure", "ErrorMessage": "text"}]},
    ),
    "get_item": (
        "dynamodb",
        {
            "TableName": "ended",
            "Key": {"conversation": {"S": "d/c"}},
            "ConsistentRead": True,
            "ReturnConsumedCapacity": "TOTAL",
        },
        {"Item": ITEM, "ConsumedCapacity": {"TableName": "ended", "CapacityUnits": 1.0}},
    ),
    "put_item": (
        "dynamodb",
        {
            "TableName": "ended",
            "Item": ITEM,
            "ConditionExpression": "attribute_not_exists(conversation) OR #status <> :ended",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": {":ended": {"S": "ended"}},
        },
        {"Attributes": ITEM, "ConsumedCapacity": {"TableName": "ended", "CapacityUnits": 1.0}},
    ),
    "create_schedule": ("scheduler", SCHEDULE, {"ScheduleArn": "arn"}),
    "get_schedule": (
        "scheduler",
        {"GroupName": "limits", "Name": "d-c"},
        {**SCHEDULE, "Arn": "arn", "CreationDate": 1764060000.5},
    ),
    "update_schedule": ("scheduler", SCHEDULE, {"ScheduleArn": "arn"}),
    "change_message_visibility": (
        "sqs",
        {"QueueUrl": "https://example.com/1/queue", "ReceiptHandle": "handle", "VisibilityTimeout": 30},
        {},
    ),
    "send_message": (
        "sqs",
        {
            "QueueUrl": "https://example.com/1/queue",
            "MessageBody": "{}",
            "MessageAttributes": {
                "text": {"DataType": "String", "StringValue": "t"},
                "bytes": {"DataType": "Binary", "BinaryValue": b"b"},
            },
        },
        {"MessageId": "1", "MD5OfMessageBody": "99914b932bd37a50b983c5e7c90ae93b"},
    ),
}
