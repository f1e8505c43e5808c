"""Filters, tags and pages, as every Describe action has them."""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pipeline.localcloud.refusals import Refused

Item = TypeVar("Item")


def matches(wanted: Iterable[str], found: Any) -> bool:
    """Tell whether a value, or one of several, is among those that a filter names; * and ? are wildcards."""
    values = found if isinstance(found, (list, tuple, set)) else [found]
    texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in values if value is not None]
    return any(fnmatch.fnmatchcase(text, pattern) for text in texts for pattern in wanted)


def tag_filter(name: str, wanted: list[str], tags: dict[str, str]) -> bool | None:
    """Tell whether tags match a filter on tags; None when the filter is not one on tags."""
    if name.startswith("tag:"):
        return matches(wanted, tags.get(name[4:]))
    if name == "tag-key":
        return matches(wanted, list(tags))
    if name == "tag-value":
        return matches(wanted, list(tags.values()))
    return None


def passes(
    filters: Mapping[str, list[str]], item: Item, getters: Mapping[str, Callable[[Item], Any]], tags: dict[str, str]
) -> bool:
    """Tell whether an item passes all filters. An unknown filter is refused."""
    for name, values in filters.items():
        wanted = [values] if isinstance(values, str) else values
        on_tags = tag_filter(name, wanted, tags)
        if on_tags is None:
            if name not in getters:
                raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
            on_tags = matches(wanted, getters[name](item))
        if not on_tags:
            return False
    return True


def take_page(items: list[Any], params: Any) -> tuple[list[Any], str | None]:
    """Return a page of a list and the token of the next one; a token is the number of the items before it."""
    start = int(params.get("NextToken") or 0)
    size = int(params.get("MaxResults") or 0) or max(len(items), 1)
    end = start + size
    return items[start:end], str(end) if end < len(items) else None
