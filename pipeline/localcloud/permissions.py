"""Changes of permissions, as calls ask for them: the same two forms for images and for snapshots."""

# ruff: noqa: ANN401 -- moto's parameters have no types

from typing import Any

from pipeline.localcloud.refusals import Refused

Permission = dict[str, str]
Changes = tuple[list[Permission], list[Permission]]


def permission_changes(params: Any, structured_name: str, named: list[Permission]) -> Changes:
    """Return what a call adds to and removes from permissions, in the structured form and in that with OperationType.

    Packer sends the structured form and the names beside it, without an OperationType: the names then say nothing.
    """
    structured = params.get(structured_name) or {}
    add, remove = list(structured.get("Add") or []), list(structured.get("Remove") or [])
    operation = params.get("OperationType")
    if operation in ("add", "remove"):
        (add if operation == "add" else remove).extend(named)
    elif named and not structured:
        raise Refused("InvalidParameterCombination", "OperationType must be add or remove")
    return [dict(permission) for permission in add], [dict(permission) for permission in remove]
