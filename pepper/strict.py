"""The base of schemas for files that others may have written or changed."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """No key but those that are named, no value of another type, no number that is none."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
