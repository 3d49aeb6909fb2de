"""What configuration groups are made from: their base class, common field types, and groups chosen by their `kind`.

Depends on pydantic alone, so that a part can own its configuration class without importing `cppo_lab.config`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticKnownError

from cppo_lab.registry import Registry

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, lt=math.inf)]
NotNegative = Annotated[float, Field(ge=0, lt=math.inf)]
Revision = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
"""A commit of the Hugging Face hub."""


NAME_LENGTH = 80


def name_problem(name: str) -> str | None:
    """Why a name cannot be a folder's on every system, or shown on a terminal; None if it can."""
    allowed = f"must be 1 to {NAME_LENGTH} printable characters without / and \\, and not begin with a dot or a space"
    is_fine = (
        0 < len(name) <= NAME_LENGTH
        and name.isprintable()
        and not {"/", "\\"} & set(name)
        and not name.startswith((".", " "))
        and not name.endswith(" ")
    )
    return None if is_fine else allowed


class Group(BaseModel):
    """A configuration group: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


AnyGroup = TypeVar("AnyGroup", bound=Group)


def by_kind(registry: Registry[type[AnyGroup]]) -> Any:
    """Metadata of a field whose class is registered under the value of its key `kind`.

    As in `engine: Annotated[SerializeAsAny[EngineConfig], by_kind(engines)]`; without `SerializeAsAny`, pydantic would
    dump the keys of the base class alone. Plug-ins may register further classes until the field is validated. Errors
    have the locations and types of a discriminated union.
    """

    def validate(value: Any) -> Any:
        if isinstance(value, Group):
            return value
        if not isinstance(value, Mapping):
            raise PydanticKnownError("model_type", {"class_name": registry.kind})
        if "kind" not in value:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        kind = str(value["kind"])
        if kind not in registry:
            allowed = ", ".join(map(repr, registry))
            context = {"discriminator": "'kind'", "tag": kind, "expected_tags": allowed}
            raise PydanticKnownError("union_tag_invalid", context)
        return registry[kind].model_validate(value)

    return PlainValidator(validate)
