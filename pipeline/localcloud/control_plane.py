"""The control plane: moto's EC2 with our images, snapshots and instances in place of its own.

Everything that replaces a part of moto is installed here, in process. moto's version is pinned; the contract test
(tests/localcloud/test_contract.py) asks every call that the pipeline and its peers make.
"""

import datetime
import json
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import moto
import moto.ec2.urls
import moto.iam.models
from botocore.model import OperationNotFoundError
from moto.core.base_backend import BackendDict
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import DryRunClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import Instance
from moto.ec2.responses import EC2Response
from moto.iam import iam_backends
from moto.ssm.models import Parameter, ssm_backends
from moto.sts import sts_backends

from pipeline.localcloud.accounts import BUILDER_ACCOUNT, SECRET, access_key, account_of
from pipeline.localcloud.cloud import Cloud
from pipeline.localcloud.guests import GuestFailed
from pipeline.localcloud.images import Image, ImageBackend, ImageHandlers
from pipeline.localcloud.imports import ImportBackend, ImportHandlers
from pipeline.localcloud.instances import InstanceHandlers, LocalInstanceBackend, set_state
from pipeline.localcloud.machines import Machines
from pipeline.localcloud.refusals import Refused
from pipeline.localcloud.state import load_state, save_state
from pipeline.localcloud.volumes import VolumeBackend, VolumeHandlers

log = logging.getLogger("localcloud")

READING = ("Describe", "Get", "List", "Search", "Lookup")
TOKENS_KEPT = 500
ROLE_SECONDS = 6 * 3600


class LocalBackend(LocalInstanceBackend, ImageBackend, VolumeBackend, ImportBackend, EC2Backend):  # type: ignore[misc]
    """EC2 for one account in one region."""

    cloud: ClassVar[Cloud]

    def __init__(self, region_name: str, account_id: str) -> None:
        self.client_tokens: dict[str, tuple[str, Any]] = {}
        self.init_images()
        self.init_snapshots()
        EC2Backend.__init__(self, region_name, account_id)

    @property
    def _url_module(self) -> Any:  # noqa: ANN401 -- a module
        return moto.ec2.urls

    @property
    def machines(self) -> Machines:
        """The cloud's machines."""
        return self.cloud.machines

    def _load_amis(self) -> None:
        """Begin without moto's list of invented images."""

    def neighbours(self) -> Iterator["LocalBackend"]:
        """Yield the backends of every account in this region that has been used."""
        for _, region, backend in list(ec2_backends.iter_backends()):
            if region == self.region_name:
                yield backend

    def in_region(self, region: str) -> "LocalBackend":
        """Return this account's backend in another region."""
        check_region(region)
        self.cloud.seed(region)
        return of_account(self.account_id, region)

    def of_account(self, account_id: str) -> "LocalBackend":
        """Return another account's backend in this region."""
        return of_account(account_id, self.region_name)

    def image_in(self, region: str | None, image_id: str | None) -> Image | None:
        """Return an image that this account may see, or None."""
        if not region or not image_id:
            return None
        images = of_account(self.account_id, region).all_images()
        return next((image for image in images if image.id == image_id and self.may_launch(image)), None)

    def cloud_organisations(self) -> set[str]:
        """Return the ARNs of the organisation and units that this account belongs to."""
        return organisations.get(self.account_id, set())

    def read_parameter(self, name: str) -> str | None:
        """Return an SSM parameter's value, the public ones too."""
        publish_parameters(self.account_id, self.region_name)
        base, _, version = name.partition(":")
        backend = ssm_backends[self.account_id][self.region_name]
        found = backend.get_parameter(f"{base}:{version}" if version else base)
        return str(found.value) if found else None

    def role_of(self, instance: Instance) -> tuple[str | None, str | None]:
        """Return the name of an instance's role and the ARN of its profile."""
        for association in self.iam_instance_profile_associations.values():
            profile = association.iam_instance_profile
            if association.instance_id == instance.id and profile.roles:
                return profile.roles[0].name, profile.arn
        return None, None

    def role_credentials(self, role_name: str | None) -> dict[str, str] | None:
        """Return credentials of an instance's role: they belong to its account and end in six hours."""
        if role_name is None:
            return None
        ends = utcnow() + datetime.timedelta(seconds=ROLE_SECONDS)
        return {
            "AccessKeyId": access_key(self.account_id, temporary=True),
            "SecretAccessKey": SECRET,
            "Token": f"local-{role_name}",
            "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def recover(self) -> None:
        """Settle what a restart interrupted: nothing runs any more, and what is on disk is complete."""
        disks = self.machines.disks
        for instance in self.all_instances():
            if instance.state == "shutting-down":
                set_state(instance, "terminated", instance.state_reason, instance._reason)
                instance.ended = utcnow()
                self.release(instance)
            elif instance.state in ("pending", "running", "stopping"):
                set_state(
                    instance, "stopped", instance.state_reason, "Server.InstanceStop: the local cloud was stopped"
                )
                if instance.nics:
                    instance.nics[0].public_ip = None
        for snapshot_id, snapshot in list(self.own_snapshots.items()):
            if snapshot_id not in disks.snapshot_ids():
                snapshot.status = "error"
            elif snapshot.status == "pending" and snapshot_id not in self.uploads:
                snapshot.status = "completed"
        for volume_id in set(self.volumes) - disks.volume_ids():
            self.volumes[volume_id].attachment = None
            del self.volumes[volume_id]
        for image in self.images.values():
            if image.state == "pending":
                broken = any(self.own_snapshots[item].status != "completed" for item in image.snapshot_ids)
                image.state = "failed" if broken else "available"


class LocalResponse(ImageHandlers, VolumeHandlers, InstanceHandlers, ImportHandlers, EC2Response):  # type: ignore[misc]
    """Answers EC2's actions."""

    @property
    def backend(self) -> LocalBackend:  # type: ignore[override]
        """The caller's account in the request's region."""
        return of_account(self.current_account, self.region)

    def tags_for(self, kind: str) -> dict[str, str]:
        """Return the tags that a request asks for one kind of resource."""
        tags: dict[str, str] = {}
        for specification in self.params.get("TagSpecifications") or []:
            if specification.get("ResourceType") == kind:
                tags |= {tag["Key"]: tag.get("Value", "") for tag in specification.get("Tags") or []}
        return tags

    def _dispatch(self, request: Any, full_url: str | None = None, headers: Any = None) -> Any:  # noqa: ANN401
        try:
            return super()._dispatch(request, full_url, headers)
        except OperationNotFoundError:
            message = f"The action {self._get_action()} is not valid for this web service."
            return self.refuse(Refused("InvalidAction", message))

    def call_action(self) -> Any:  # noqa: ANN401 -- moto's triple
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

    def refuse(self, refused: Exception) -> Any:  # noqa: ANN401 -- moto's triple
        """Return an error as EC2 words it."""
        return self.serialized(ActionResult(refused))

    def answer_once(self) -> Any:  # noqa: ANN401 -- moto's triple
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


organisations: dict[str, set[str]] = {}
"""Which organisation and units an account belongs to: set through the cloud's own API, for sharing with them."""

public_parameters: dict[str, dict[str, str]] = {}
"""The public SSM parameters of each region: name and value."""


def of_account(account_id: str, region: str) -> LocalBackend:
    """Return the backend of an account in a region."""
    backend: LocalBackend = ec2_backends[account_id][region]
    return backend


def check_region(region: str) -> None:
    """Refuse a region that does not exist, as EC2's signature check does."""
    if region not in ec2_backends[BUILDER_ACCOUNT]:
        raise Refused("AuthFailure", f"Credential should be scoped to a valid region, not '{region}'.")


def account_from_key(key: str) -> str:
    """Return the account of an access key: of our scheme, or one that IAM or STS made here."""
    named = account_of(key)
    if named is not None:
        return named
    for account_id, account in list(iam_backends.items()):
        if any(key in backend.access_keys for backend in account.values()):
            return account_id
    return BUILDER_ACCOUNT


def publish_parameters(account_id: str, region: str) -> None:
    """Show the public parameters of a region to an account."""
    parameters = ssm_backends[account_id][region]._parameters
    for name, value in public_parameters.get(region, {}).items():
        if not (name in parameters and parameters[name][-1].value == value):
            parameters[name] = [
                Parameter(account_id, name, value, "String", None, None, None, utcnow(), 1, "aws:ec2:image")
            ]


def install(cloud: Cloud) -> None:
    """Put our parts into moto, and take up the state of before. Raises StateRefused."""
    BackendDict.reset()
    LocalBackend.cloud = cloud
    ec2_backends.backend = LocalBackend
    moto.ec2.urls.url_paths["{0}/"] = LocalResponse.dispatch
    moto.iam.models.get_account_id_from = account_from_key
    Instance.public_dns_name = property(lambda instance: "")
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
    kept = {"ec2": ec2_backends, "iam": iam_backends, "sts": sts_backends}
    content: dict[str, Any] = {
        name: {(account, region): backend for account, region, backend in list(backends.iter_backends())}
        for name, backends in kept.items()
    }
    content["ssm"] = {
        (account, region): {
            name: list(versions)
            for name, versions in dict.items(backend._parameters)
            if not name.startswith("/aws/") and versions
        }
        for account, region, backend in list(ssm_backends.iter_backends())
    }
    content["organisations"] = dict(organisations)
    return content


def restore(content: dict[str, Any]) -> None:
    """Take up what `collect` returned."""
    for name, backends in {"ec2": ec2_backends, "iam": iam_backends, "sts": sts_backends}.items():
        for (account, region), backend in content[name].items():
            backends[account][region] = backend
    for (account, region), parameters in content["ssm"].items():
        for name, versions in parameters.items():
            ssm_backends[account][region]._parameters[name] = versions
    organisations.update(content["organisations"])


def reconcile(cloud: Cloud) -> None:
    """Settle every backend, and delete disks that no record names."""
    backends: list[LocalBackend] = [backend for _, _, backend in list(ec2_backends.iter_backends())]
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
    """Give an image, a snapshot or a volume product codes. Raises Refused for an unknown id."""
    for _, _, backend in list(ec2_backends.iter_backends()):
        for holder in (backend.images, backend.own_snapshots, backend.volumes):
            if identity in holder:
                holder[identity].product_codes = codes
                return
    raise Refused("InvalidParameterValue", f"{identity} is neither an image nor a snapshot nor a volume")


def inventory() -> dict[str, Any]:
    """Return how much the cloud holds, and its instances."""
    backends: list[LocalBackend] = [backend for _, _, backend in list(ec2_backends.iter_backends())]
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
