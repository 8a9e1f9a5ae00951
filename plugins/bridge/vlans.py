"""The entries of `vlanTrunk`: single VLAN ids and ranges of them."""

from typing import Self

from pycni.sdk import Field, Model, model_validator


class VlanRange(Model):
    """One entry of `vlanTrunk`: a VLAN `id`, a range from `minID` to `maxID`, or both."""

    id: int | None = Field(None, ge=1, le=4094)
    min_id: int | None = Field(None, alias="minID", ge=1, le=4094)
    max_id: int | None = Field(None, alias="maxID", ge=1, le=4094)

    @model_validator(mode="after")
    def _range_is_complete(self) -> Self:
        if (self.min_id is None) != (self.max_id is None):
            missing = "minID" if self.min_id is None else "maxID"
            raise ValueError(f"minID and maxID should be configured simultaneously, {missing} is missing")
        if self.min_id is not None and self.max_id is not None and self.min_id > self.max_id:
            raise ValueError("minID is greater than maxID in trunk parameter")
        return self

    @property
    def ids(self) -> set[int]:
        """Return the VLAN ids of the entry."""
        span = {*range(self.min_id, self.max_id + 1)} if self.min_id and self.max_id else set()
        return span | ({self.id} if self.id else set())
