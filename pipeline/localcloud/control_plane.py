"""The control plane: moto's EC2 with our images, snapshots and instances in place of its own.

Everything that replaces a part of moto is installed here, in process. moto's version is pinned; the contract test
(tests/localcloud/test_contract.py) asks every call that the pipeline and its peers make.
"""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

import functools
import json
import logging
from types import ModuleType
from typing import Any, cast

import moto
import moto.core.responses
import moto.ec2.models.elastic_block_store
import moto.ec2.models.instances
import moto.ec2.models.subnets
import moto.ec2.urls
import moto.iam.models
import moto.s3.responses
from botocore.model import OperationNotFoundError
from moto.core.base_backend import BackendDict
from moto.core.responses import ActionResult
from moto.core.utils import method_names_from_class
from moto.ec2.exceptions import DryRunClientError
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.ssm.models import ssm_backends
from moto.sts.models import sts_backends

from pipeline.localcloud.backend import (
    LocalSubnet,
    account_from_key,
    check_region,
    organisations,
    public_parameters,
)
from pipeline.localcloud.cloud import Cloud
from pipeline.localcloud.guests import GuestFailed
from pipeline.localcloud.imports import ImportBackend, ImportHandlers
from pipeline.localcloud.instances import LocalInstance
from pipeline.localcloud.refusals import Refused
from pipeline.localcloud.state import load_state, save_state
from pipeline.localcloud.uploads import ObjectBackend, ObjectResponse
from pipeline.localcloud.usage import UsageBackend, UsageHandlers
from pipeline.localcloud.volumes import LocalVolume
from pipeline.localcloud.vpcs import VpcBackend, VpcHandlers

log = logging.getLogger("localcloud")

READING = ("Describe", "Get", "List", "Search", "Lookup")
TOKENS_KEPT = 100


class LocalBackend(VpcBackend, ImportBackend, UsageBackend):
    """EC2 for one account in one region."""

    def recover(self) -> None:
        """Settle what a restart interrupted."""
        self.recover_instances()
        self.recover_volumes()
        self.recover_images()
        self.recover_usage()


class LocalResponse(VpcHandlers, ImportHandlers, UsageHandlers):
    """Answers EC2's actions."""

    @property
    def backend(self) -> LocalBackend:
        """The caller's account in the request's region."""
        return cast(LocalBackend, self.ec2_backend)

    def _dispatch(self, request: Any, full_url: str | None = None, headers: Any = None) -> Any:
        try:
            return super()._dispatch(request, full_url, headers)
        except OperationNotFoundError:
            message = f"The action {self._get_action()} is not valid for this web service."
            return self.refuse(Refused("InvalidAction", message))

    def call_action(self) -> Any:
        """Check the region, the dry run and the client token, and turn every breakdown into an error of EC2."""
        try:
            check_region(self.region)
            self.backend.cloud.seed(self.region)
            if self.params.get("DryRun"):
                raise DryRunClientError
            return self.answer_once()
        except NotImplementedError:
            message = f"The local cloud does not have the action {self._get_action()}; see its COVERAGE.md"
            return self.refuse(Refused("InvalidAction", message))
        except (Refused, DryRunClientError) as refused:
            return self.refuse(refused)
        except OSError as error:
            if error.errno in (28, 122):
                return self.refuse(Refused("InsufficientVolumeCapacity", f"There is no room for the volume: {error}"))
            return self.refuse(Refused("InternalError", str(error)))
        except GuestFailed as error:
            return self.refuse(Refused("InternalError", str(error)))
        except Exception as error:
            log.exception("%s", self._get_action())
            _, headers, body = self.refuse(Refused("InternalError", f"{type(error).__name__}: {error}"))
            return 500, headers, body

    def refuse(self, refused: Exception) -> Any:
        """Return an error as EC2 words it."""
        return self.serialized(ActionResult(refused))

    def answer_once(self) -> Any:
        """Answer a repeated request with the first one's answer, where the caller gave a client token."""
        token = self.params.get("ClientToken")
        if not token:
            return super().call_action()
        key = f"{self._get_action()} {token}"
        asked = json.dumps(self.params, sort_keys=True, default=str)
        if key in self.backend.client_tokens:
            first, answer = self.backend.client_tokens[key]
            if first != asked:
                message = "The request uses the same client token as a previous, but non-identical request."
                raise Refused("IdempotentParameterMismatch", message)
            return answer
        answer = super().call_action()
        if answer[0] == 200:
            self.backend.client_tokens[key] = (asked, answer)
            while len(self.backend.client_tokens) > TOKENS_KEPT:
                del self.backend.client_tokens[next(iter(self.backend.client_tokens))]
        return answer


def all_backends() -> list[LocalBackend]:
    """Return every account's backend in every region that has been used."""
    return [cast(LocalBackend, backend) for _, _, backend in list(ec2_backends.iter_backends())]


def of_account(account_id: str, region: str) -> LocalBackend:
    """Return the backend of an account in a region."""
    return cast(LocalBackend, ec2_backends[account_id][region])


def replace(module: ModuleType, name: str, ours: object) -> None:
    """Put our part in place of moto's; one that moto does not have any more is a defect of this cloud."""
    if not hasattr(module, name):
        raise AttributeError(f"moto {moto.__version__} has no {module.__name__}.{name}")
    setattr(module, name, ours)


def install(cloud: Cloud) -> None:
    """Put our parts into moto, and take up the state of before. Raises StateRefused."""
    BackendDict.reset()
    LocalBackend.cloud = cloud
    ec2_backends.backend = LocalBackend
    s3_backends.backend = ObjectBackend
    moto.ec2.urls.url_paths["{0}/"] = LocalResponse.dispatch
    replace(moto.iam.models, "get_account_id_from", account_from_key)
    replace(moto.ec2.models.instances, "Instance", LocalInstance)
    replace(moto.ec2.models.subnets, "Subnet", LocalSubnet)
    replace(moto.ec2.models.elastic_block_store, "Volume", LocalVolume)
    replace(moto.s3.responses, "S3Response", ObjectResponse)
    replace(moto.core.responses, "method_names_from_class", functools.cache(method_names_from_class))
    organisations.clear()
    public_parameters.clear()
    path = cloud.home / "state.pickle"
    content = load_state(path, moto.__version__)
    if content is not None:
        restore(content)
    cloud.save = lambda: save_state(path, collect(), moto.__version__)
    reconcile(cloud)
    cloud.save()


def collect() -> dict[str, Any]:
    """Return everything that is to survive a restart."""
    kept: dict[str, Any] = {"ec2": ec2_backends, "iam": iam_backends, "sts": sts_backends}
    content: dict[str, Any] = {
        name: {(account, region): backend for account, region, backend in list(backends.iter_backends())}
        for name, backends in kept.items()
    }
    parameters: list[tuple[str, str, Any]] = list(ssm_backends.iter_backends())
    content["ssm"] = {
        (account, region): {
            name: list(versions)
            for name, versions in dict.items(backend._parameters)
            if not name.startswith("/aws/") and versions
        }
        for account, region, backend in parameters
    }
    content["organisations"] = dict(organisations)
    return content


def restore(content: dict[str, Any]) -> None:
    """Take up what `collect` returned."""
    kept: dict[str, Any] = {"ec2": ec2_backends, "iam": iam_backends, "sts": sts_backends}
    for name, backends in kept.items():
        for (account, region), backend in content[name].items():
            backends[account][region] = backend
    for (account, region), parameters in content["ssm"].items():
        for name, versions in parameters.items():
            ssm_backends[account][region]._parameters[name] = versions
    organisations.update(content["organisations"])


def reconcile(cloud: Cloud) -> None:
    """Settle every backend, and delete disks that no record names."""
    backends = all_backends()
    for backend in backends:
        backend.recover()
    disks = cloud.machines.disks
    known_volumes = {volume_id for backend in backends for volume_id in backend.volumes}
    known_snapshots = {snapshot_id for backend in backends for snapshot_id in backend.own_snapshots}
    for volume_id in disks.volume_ids() - known_volumes:
        disks.delete_volume(volume_id)
    for snapshot_id in disks.snapshot_ids() - known_snapshots:
        disks.delete_snapshot(snapshot_id)


def changes_state(service: str, action: str) -> bool:
    """Tell whether a call may change what survives a restart."""
    return (
        service in ("ec2", "iam", "sts", "ssm", "ebs")
        and not action.startswith(READING)
        and action != "PutSnapshotBlock"
    )


def set_product_codes(identity: str, codes: list[str]) -> None:
    """Give an image, a snapshot, a volume or an instance product codes. Raises Refused for an unknown id."""
    for backend in all_backends():
        instance = cast(LocalInstance | None, backend.get_instance_by_id(identity))
        if instance is not None:
            instance.set_codes(codes)
            return
        holders: tuple[dict[str, Any], ...] = (backend.images, backend.own_snapshots, backend.volumes)
        for holder in holders:
            if identity in holder:
                holder[identity].product_codes = codes
                return
    raise Refused("InvalidParameterValue", f"{identity} is neither an image nor a snapshot, a volume or an instance")


def inventory() -> dict[str, Any]:
    """Return how much the cloud holds, and its instances."""
    backends = all_backends()
    instances = [
        {
            "id": instance.id,
            "account": backend.account_id,
            "region": backend.region_name,
            "state": instance.state,
            "image": instance.image_id,
            "public_address": instance.public_ip if instance.nics else None,
            "open_ports": backend.machines.open_ports(instance.id),
        }
        for backend in backends
        for instance in backend.all_instances()
        if instance.state != "terminated"
    ]
    images = [
        {"id": image.id, "name": image.name, "owner": image.owner_id, "region": backend.region_name}
        for backend in backends
        for image in backend.images.values()
    ]
    return {
        "instances": instances,
        "images": images,
        "snapshots": sum(len(backend.own_snapshots) for backend in backends),
        "volumes": sum(len(backend.volumes) for backend in backends),
    }
