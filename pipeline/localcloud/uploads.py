"""S3 as uploaders of disk images use it: checksums in ListParts, and tags that begin with `aws` but not with `aws:`."""

from typing import Any, cast

from moto.core.common_types import TYPE_RESPONSE
from moto.core.responses import ActionResult
from moto.s3.models import FakeKey, S3Backend
from moto.s3.responses import S3Response
from moto.s3.utils import compute_checksum

MOST_TAGS = 10


class ObjectBackend(S3Backend):
    """S3 for one account."""

    def put_object_tagging(self, key: FakeKey, tags: dict[str, str] | None) -> FakeKey:
        """Tag an object. moto refuses every name that begins with `aws`, S3 itself only those with the colon."""
        tags = tags or {}
        refused_wrongly = {name for name in tags if name.startswith("aws") and not name.startswith("aws:")}
        if not refused_wrongly or len(tags) > MOST_TAGS:
            return super().put_object_tagging(key, tags)
        tagged = super().put_object_tagging(key, {name: tags[name] for name in tags.keys() - refused_wrongly})
        rest = {name: tags[name] for name in refused_wrongly}
        self.tagger.tag_resource(key.arn, self.tagger.convert_dict_to_tags_input(rest))
        return tagged


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
