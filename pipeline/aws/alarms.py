"""The alarm on the account's bill, and whether anybody hears it (A19)."""

from dataclasses import dataclass
from typing import Any

from pipeline.aws.session import Session, cloud_errors

BILLING_REGION = "us-east-1"
"""Billing metrics are kept there only (CloudWatch User Guide, "Create a billing alarm")."""
METRIC = "EstimatedCharges"
UNCONFIRMED = frozenset({"PendingConfirmation", "Deleted"})


@dataclass(frozen=True)
class BillingAlarm:
    """An alarm on the estimated charges."""

    name: str
    enabled: bool
    threshold: float | None
    confirmed_subscribers: int


def read_billing_alarms(session: Session) -> tuple[BillingAlarm, ...]:
    """Return the alarms on the bill with how many confirmed subscribers hear each. Raises CloudFailed."""
    there = session.in_region(BILLING_REGION)
    with cloud_errors("the billing alarms", BILLING_REGION):
        pages = there.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmTypes=["MetricAlarm"])
        found = [alarm for page in pages for alarm in page["MetricAlarms"] if METRIC in metrics_of(alarm)]
    topics = {topic for alarm in found for topic in topics_of(alarm)}
    heard = {topic: count_confirmed(there, topic) for topic in topics}
    return tuple(
        BillingAlarm(
            name=alarm["AlarmName"],
            enabled=alarm.get("ActionsEnabled", False),
            threshold=alarm.get("Threshold"),
            confirmed_subscribers=sum(heard[topic] for topic in topics_of(alarm)),
        )
        for alarm in found
    )


def metrics_of(alarm: dict[str, Any]) -> set[str]:
    """Return the metrics that an alarm looks at: the one it names, or those of its expression."""
    queries = (query.get("MetricStat", {}).get("Metric", {}) for query in alarm.get("Metrics", []))
    return {alarm.get("MetricName", ""), *(metric.get("MetricName", "") for metric in queries)}


def topics_of(alarm: dict[str, Any]) -> list[str]:
    """Return the SNS topics that an alarm calls."""
    return [action for action in alarm.get("AlarmActions", []) if ":sns:" in action]


def count_confirmed(session: Session, topic: str) -> int:
    """Return how many subscribers of a topic have confirmed. Raises CloudFailed."""
    with cloud_errors(topic, session.region):
        pages = session.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
        return sum(one["SubscriptionArn"] not in UNCONFIRMED for page in pages for one in page["Subscriptions"])
