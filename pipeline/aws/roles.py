"""The role of an instance profile: what whoever is on an instance may do in the account (A21)."""

from collections.abc import Iterable, Iterator

from pipeline.aws.identities import Document, as_document, as_list
from pipeline.aws.session import Session, cloud_errors


def read_role_policies(session: Session, profile: str) -> tuple[Document, ...]:
    """Return the policies of an instance profile's role, attached and inline. Raises CloudFailed without such one."""
    iam = session.client("iam")
    found: list[Document] = []
    with cloud_errors(profile, session.region):
        for role in iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]:
            name = role["RoleName"]
            for page in iam.get_paginator("list_attached_role_policies").paginate(RoleName=name):
                for attached in page["AttachedPolicies"]:
                    arn = attached.get("PolicyArn", "")
                    version = iam.get_policy(PolicyArn=arn)["Policy"].get("DefaultVersionId", "")
                    document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]
                    found.append(as_document(document.get("Document")))
            for names in iam.get_paginator("list_role_policies").paginate(RoleName=name):
                for inline in names["PolicyNames"]:
                    answer = iam.get_role_policy(RoleName=name, PolicyName=inline)
                    found.append(as_document(answer.get("PolicyDocument")))
    return tuple(found)


def wide_rights(documents: Iterable[Document]) -> Iterator[str]:
    """Yield what policies allow that no build needs: all actions of a service, or all but some, on every resource."""
    for document in documents:
        found = document.get("Statement", ())
        for statement in [found] if isinstance(found, dict) else found:
            if statement.get("Effect") != "Allow" or "*" not in as_list(statement.get("Resource", "*")):
                continue
            if "NotAction" in statement:
                yield f"everything but {', '.join(as_list(statement['NotAction']))}"
            yield from (one for one in as_list(statement.get("Action", ())) if one == "*" or one.endswith(":*"))
