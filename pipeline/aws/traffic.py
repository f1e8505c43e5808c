"""What an instance sends of its own accord (V07). Only the local cloud shows it: it keeps each guest's packets."""

import json
import urllib.request
from dataclasses import dataclass

from pipeline.aws.session import Session
from pipeline.errors import CloudFailed

SECONDS = 60
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Flow:
    """A place that an instance has asked something of."""

    protocol: str
    address: str
    port: int
    """0 where the protocol has none."""
    name: str
    """The name that the address was looked up by; empty where it was not looked up."""

    def __str__(self) -> str:
        where = f"{self.name} ({self.address})" if self.name else self.address
        return f"{self.protocol} {where}" + (f" port {self.port}" if self.port else "")


def read_traffic(session: Session, instance_id: str) -> tuple[Flow, ...] | None:
    """Return what an instance has opened since its last start; None on AWS, which shows nobody an instance's packets.

    Raises CloudFailed when the cloud does not answer.
    """
    if not (session.loopback and session.endpoint_url):
        return None
    request = urllib.request.Request(  # noqa: S310 -- the endpoint of this session
        f"{session.endpoint_url}/_cloud/traffic", json.dumps({"id": instance_id}).encode(), method="GET"
    )
    try:
        with DIRECT.open(request, timeout=SECONDS) as answer:
            found = json.loads(answer.read())["flows"]
        return tuple(Flow(one["protocol"], one["address"], one["port"], one["name"]) for one in found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CloudFailed(f"the traffic is not shown: {error}", resource=instance_id, region=session.region) from error
