"""Faults on request."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, HTTPClientError

from pipeline.localcloud.faults import FaultRefused, Faults
from tests.localcloud.clouds import LocalCloud, base_image, image_of, instance_of, launch, refused, state_of, wait_for

ONE = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.small"}


def ask(cloud: LocalCloud, method: str, name: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{cloud.server.url}/_cloud/{name}", json.dumps(body or {}).encode(), method=method
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.loads(answer.read())


def test_a_fault_lets_some_calls_pass_and_strikes_as_often_as_it_says() -> None:
    faults = Faults()
    faults.replace([{"kind": "error", "action": "RunInstances", "after": 1, "times": 2, "code": "Bad"}])
    struck = [faults.strike("RunInstances").error is not None for _ in range(5)]
    assert struck == [False, True, True, False, False]
    assert faults.strike("StopInstances").error is None
    assert faults.calls == {"RunInstances": 5, "StopInstances": 1}


def test_a_fault_without_an_end_strikes_every_action() -> None:
    faults = Faults()
    faults.replace([{"kind": "latency", "seconds": 0.5, "times": 0}])
    assert [faults.strike(name).wait_seconds for name in "abc"] == [0.5] * 3


@pytest.mark.parametrize("record", [{"kind": "meteor"}, {"kind": "error", "when": "now"}, {}])
def test_an_unknown_fault_is_refused_and_changes_nothing(record: dict[str, Any]) -> None:
    faults = Faults()
    faults.replace([{"kind": "throttle"}])
    with pytest.raises(FaultRefused, match="kind is one of"):
        faults.replace([record])
    assert [fault["kind"] for fault in faults.listed()] == ["throttle"]


@pytest.mark.loopback
@pytest.mark.subprocess
def test_faults_strike_over_http(local_cloud: LocalCloud) -> None:
    ec2, ebs, ssm = (local_cloud.client(name) for name in ("ec2", "ebs", "ssm"))
    image_id = base_image(ec2)
    faults = [
        {"kind": "throttle", "action": "DescribeVpcs"},
        {"kind": "capacity"},
        {"kind": "error", "action": "GetParameter", "code": "ThrottlingException"},
        {"kind": "error", "action": "StartSnapshot", "code": "InternalServerException", "status": 500},
        {"kind": "volume-full", "action": "RunInstances", "after": 1},
    ]
    ask(local_cloud, "PUT", "faults", {"faults": faults})
    refused("RequestLimitExceeded", ec2.describe_vpcs)
    assert ec2.describe_vpcs()["Vpcs"]
    refused("InsufficientInstanceCapacity", lambda: ec2.run_instances(ImageId=image_id, **ONE))
    refused("InsufficientVolumeCapacity", lambda: ec2.run_instances(ImageId=image_id, **ONE))
    refused("ThrottlingException", lambda: ssm.get_parameter(Name="x"))
    refused("InternalServerException", lambda: ebs.start_snapshot(VolumeSize=1))
    assert ec2.describe_instances()["Reservations"] == []
    assert ask(local_cloud, "GET", "calls")["count"]["RunInstances"] == 2
    with pytest.raises(urllib.error.HTTPError) as failure:
        ask(local_cloud, "PUT", "faults", {"faults": [{"kind": "meteor"}]})
    assert failure.value.code == 400
    failure.value.close()


@pytest.mark.loopback
@pytest.mark.subprocess
def test_a_lost_response_is_done_all_the_same(local_cloud: LocalCloud) -> None:
    ec2 = local_cloud.client("ec2")
    image_id = base_image(ec2)
    ask(local_cloud, "PUT", "faults", {"faults": [{"kind": "lost-response", "action": "RunInstances"}]})
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        ec2.run_instances(ImageId=image_id, ClientToken="again", **ONE)
    second = ec2.run_instances(ImageId=image_id, ClientToken="again", **ONE)["Instances"][0]["InstanceId"]
    found = ec2.describe_instances()["Reservations"]
    assert [item["Instances"][0]["InstanceId"] for item in found] == [second]


@pytest.mark.loopback
@pytest.mark.subprocess
def test_pending_lasts_as_long_as_is_asked(local_cloud: LocalCloud) -> None:
    ec2 = local_cloud.client("ec2")
    instance_id = launch(ec2)
    ask(local_cloud, "PUT", "faults", {"faults": [{"kind": "slow-pending", "action": "CreateImage", "seconds": 0.5}]})
    image_id = ec2.create_image(InstanceId=instance_id, Name="slow", NoReboot=True)["ImageId"]
    assert image_of(ec2, image_id)["State"] == "pending"
    refused("InvalidAMIID.Unavailable", lambda: ec2.run_instances(ImageId=image_id, **ONE))
    wait_for(lambda: image_of(ec2, image_id)["State"], "available")


@pytest.mark.loopback
@pytest.mark.subprocess
def test_an_instance_that_is_terminated_while_pending_does_not_run(local_cloud: LocalCloud) -> None:
    ec2 = local_cloud.client("ec2")
    image_id = base_image(ec2)
    ask(local_cloud, "PUT", "faults", {"faults": [{"kind": "slow-pending", "action": "RunInstances", "seconds": 3}]})
    instance_id = ec2.run_instances(ImageId=image_id, **ONE)["Instances"][0]["InstanceId"]
    assert instance_of(ec2, instance_id)["State"]["Name"] == "pending"
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait_for(lambda: state_of(ec2, instance_id), "terminated")
    local_cloud.cloud.wait_idle(60.0)
    assert state_of(ec2, instance_id) == "terminated"
    assert local_cloud.cloud.machines.running(instance_id) is None
