"""A section of the config: a dataclass that refuses what it does not have."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from typing import Any, ClassVar, Self

from stepcoder_jax.config.ranges import Ranges
from stepcoder_jax.records import InputError


class ConfigError(InputError):
    """A field has a value that cannot work; the message names the field and the mend."""


class Section:
    """A dataclass with no other attributes than its fields: a misspelt one is refused.

    Raises ConfigError, with the nearest name, where it is made and where it is assigned to.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    ranges: ClassVar[Ranges] = {}  # of its numbers

    def __new__(cls, *values: Any, **named: Any) -> Self:
        for name in named:
            cls.require(name)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        self.require(name)
        scope = vars(sys.modules[type(self).__module__])  # that of its annotations
        kind: Any = scope.get(str(self.__dataclass_fields__[name].type))
        is_section = isinstance(kind, type) and issubclass(kind, Section)
        if is_section and not isinstance(value, kind):
            raise ConfigError(
                f"{type(self).__name__}.{name}: expected a {kind.__name__}, got {value!r}"
            )
        super().__setattr__(name, value)

    @classmethod
    def require(cls, name: str) -> None:
        """Refuse a name that is no field of this section."""
        known = cls.__dataclass_fields__
        if name in known:
            return
        near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
        meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
        raise ConfigError(f"{cls.__name__} has no field {name!r}; {meant}")
