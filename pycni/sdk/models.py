"""The names that models are declared with, from pydantic, or in a one-shot process from pycni.pydantic_subset."""

from typing import TYPE_CHECKING

from pycni import pydantic_subset

if TYPE_CHECKING or not pydantic_subset.in_use:
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        PlainValidator,
        TypeAdapter,
        ValidationError,
        field_validator,
        model_validator,
    )
    from pydantic.alias_generators import to_camel
else:
    from pycni.pydantic_subset import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        PlainValidator,
        TypeAdapter,
        ValidationError,
        field_validator,
        model_validator,
        to_camel,
    )

__all__ = [
    "AfterValidator",
    "BaseModel",
    "BeforeValidator",
    "ConfigDict",
    "Field",
    "PlainValidator",
    "TypeAdapter",
    "ValidationError",
    "field_validator",
    "model_validator",
    "to_camel",
]
