"""moto's EC2 of one account in one region, and what our parts of it share."""

import datetime
import random
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar, Self, cast

import moto.ec2.urls
from moto.core.utils import utcnow
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import Instance
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses import EC2Response
from moto.iam.models import iam_backends
from moto.ssm.models import Parameter, ssm_backends

from pipeline.localcloud.accounts import BUILDER_ACCOUNT, SECRET, access_key, account_of
from pipeline.localcloud.cloud import Cloud
from pipeline.localcloud.machines import Machines
from pipeline.localcloud.refusals import Refused

ROLE_SECONDS = 6 * 3600

organisations: dict[str, set[str]] = {}
"""Which organisation and units (ARNs) an account belongs to: set through the cloud's own API, for sharing with them."""

public_parameters: dict[str, dict[str, str]] = {}
"""The public SSM parameters of each region: name and value."""


class LocalSubnet(Subnet):
    """moto's subnet, which gives out addresses that a VPC reserves: the first four and the last of a subnet."""

    def get_available_subnet_ip(self, instance: Instance) -> str:
        """Return an address that nobody has, any of them, as EC2 does."""
        size = self.cidr.num_addresses
        for _ in range(10000):
            address = str(self.cidr[random.randrange(4, size - 1)])  # noqa: S311 -- any free one will do
            if address not in self._subnet_ips:
                self._subnet_ips[address] = instance
                return address
        raise Refused("InsufficientFreeAddressesInSubnet", f"There is no free address in {self.id}")


class RegionBackend(EC2Backend):
    """The base of our EC2 backend."""

    cloud: ClassVar[Cloud]
    images: dict[str, Any]

    def __init__(self, region_name: str, account_id: str) -> None:
        self.client_tokens: dict[str, tuple[str, Any]] = {}
        super().__init__(region_name, account_id)

    @property
    def _url_module(self) -> ModuleType:
        return moto.ec2.urls

    @property
    def machines(self) -> Machines:
        """The cloud's machines."""
        return self.cloud.machines

    def _load_amis(self) -> None:
        """Begin without moto's list of invented images."""

    def neighbours(self) -> Iterator[Self]:
        """Yield the backends of every account in this region that has been used."""
        for _, region, backend in list(ec2_backends.iter_backends()):
            if region == self.region_name:
                yield cast(Self, backend)

    def in_region(self, region: str) -> Self:
        """Return this account's backend in another region."""
        check_region(region)
        self.cloud.seed(region)
        return cast(Self, ec2_backends[self.account_id][region])

    def of_account(self, account_id: str) -> Self:
        """Return another account's backend in this region."""
        return cast(Self, ec2_backends[account_id][self.region_name])

    def organisation_arns(self) -> set[str]:
        """Return the ARNs of the organisation and units that this account belongs to."""
        return organisations.get(self.account_id, set())

    def read_parameter(self, name: str) -> str | None:
        """Return an SSM parameter's value, the public ones too."""
        publish_parameters(self.account_id, self.region_name)
        found = ssm_backends[self.account_id][self.region_name].get_parameter(name)
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


class LocalHandlers(EC2Response):
    """The base of our handlers: moto's answers, where we have none."""

    params: Any

    def filters(self) -> dict[str, list[str]]:
        """Return the request's filters: names and values."""
        return cast(dict[str, list[str]], self._filters_from_querystring())

    def tags_for(self, kind: str) -> dict[str, str]:
        """Return the tags that a request asks for one kind of resource."""
        tags: dict[str, str] = {}
        for specification in self.params.get("TagSpecifications") or []:
            if specification.get("ResourceType") == kind:
                tags |= {tag["Key"]: tag.get("Value", "") for tag in specification.get("Tags") or []}
        return tags


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


def public_parameter(account_id: str, name: str, value: str) -> Parameter:
    """Return a parameter that AWS or a publisher shows to every account."""
    make: Callable[..., Parameter] = Parameter
    return make(account_id, name, value, "String", None, None, None, utcnow(), 1, "aws:ec2:image")


def publish_parameters(account_id: str, region: str) -> None:
    """Show the public parameters of a region to an account."""
    parameters = ssm_backends[account_id][region]._parameters
    for name, value in public_parameters.get(region, {}).items():
        if not (name in parameters and parameters[name][-1].value == value):
            parameters[name] = [public_parameter(account_id, name, value)]
