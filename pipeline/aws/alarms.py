"""The alarm on the account's bill, and whether anybody hears it (A19)."""

from dataclasses import dataclass
from typing import Any

from pipeline.aws.session import Session, cloud_errors

BILLING_REGION = "us-east-1"
"""Billing metrics are kept there only (CloudWatch User Guide, "Create a billing alarm")."""
METRIC = "EstimatedCharges"
NAME = "assay-bill"
"""Of the alarm that is made on request, and of its topic."""
PERIOD_SECONDS = 6 * 3600
"""How often AWS writes the metric."""
UNCONFIRMED = frozenset({"PendingConfirmation", "Deleted"})


@dataclass(frozen=True)
class BillingAlarm:
    """An alarm on the estimated charges."""

    name: str
    enabled: bool
    threshold: float | None
    confirmed_subscribers: int


@dataclass(frozen=True)
class WantedAlarm:
    """An alarm that somebody asks for."""

    address: str
    """Who hears of it, by e-mail."""
    above: float
    """The estimated charges of the month so far, in US dollars."""


def create_billing_alarm(session: Session, wanted: WantedAlarm) -> None:
    """Make the alarm, its topic and its subscriber, who must confirm by the mail that AWS sends (A19).

    Done again, it changes the amount and adds the address: CloudWatch and SNS make neither twice. Raises CloudFailed;
    the caller needs sns:CreateTopic, sns:Subscribe and cloudwatch:PutMetricAlarm.
    """
    there = session.in_region(BILLING_REGION)
    with cloud_errors(NAME, BILLING_REGION):
        topic = there.client("sns").create_topic(Name=NAME)["TopicArn"]
        there.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint=wanted.address)
        there.client("cloudwatch").put_metric_alarm(
            AlarmName=NAME,
            AlarmDescription=f"the estimated charges are above {wanted.above:g} USD",
            Namespace="AWS/Billing",
            MetricName=METRIC,
            Dimensions=[{"Name": "Currency", "Value": "USD"}],
            Statistic="Maximum",
            Period=PERIOD_SECONDS,
            EvaluationPeriods=1,
            Threshold=wanted.above,
            ComparisonOperator="GreaterThanThreshold",
            AlarmActions=[topic],
        )


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
