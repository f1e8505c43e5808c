"""S3's uploads in parts: ListParts tells the checksums, as S3 does for an upload that was begun with an algorithm."""

from typing import Any, cast

from moto.core.common_types import TYPE_RESPONSE
from moto.core.responses import ActionResult
from moto.s3.responses import S3Response
from moto.s3.utils import compute_checksum


class ObjectResponse(S3Response):
    """Answers S3's actions."""

    def serialized(self, action_result: ActionResult) -> TYPE_RESPONSE:
        """Fill in what moto leaves out of ListParts: the upload's algorithm, and each part's checksum."""
        if self.data.get("Action") == "ListParts":
            self.add_checksums(cast(dict[str, Any], action_result.result))
        return super().serialized(action_result)

    def add_checksums(self, listing: dict[str, Any]) -> None:
        """Add the checksums to the answer of ListParts, unless the upload was begun without."""
        upload = self.backend.get_bucket(listing["Bucket"]).multiparts[listing["UploadId"]]
        algorithm = upload.metadata.get("x-amz-checksum-algorithm")
        if not algorithm:
            return
        listing["ChecksumAlgorithm"] = algorithm
        listing["ChecksumType"] = upload.metadata.get("x-amz-checksum-type") or "COMPOSITE"
        for part in listing["Parts"]:
            value = upload.parts[part["PartNumber"]].value
            part[f"Checksum{algorithm}"] = compute_checksum(value, algorithm).decode()
