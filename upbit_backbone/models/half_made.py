"""Models of which only a part is made when they come, and the rest when somebody looks at it.

Most of what streams is overtaken unread, or looked at in one place. A half-made model is an ordinary object of its
class whose other fields are empty slots: Python itself asks for them, so that nothing can tell it from a whole one.
Whoever makes it has proven before that the rest can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct


class Rest(Struct, eq=False, kw_only=True):
    """What a model's empty fields are made from, for as long as they are empty."""

    habit: Habit | None = None  # that is learned from this one

    def alone(self, name: str) -> Any:
        """The value of one empty field, where it can be had without the others; NOT_ALONE where it can not. As
        `values`."""
        return NOT_ALONE

    def values(self) -> dict[str, Any]:
        """Every empty field's value, always equal ones, and those that were given alone the very same. From any thread,
        also by several at once; never raises."""
        raise NotImplementedError


NOT_ALONE = object()


class HalfMade:
    """Mixin of models with slots."""

    __slots__ = ("_rest",)

    if not TYPE_CHECKING:  # or no checker would know a misspelled field from one

        def __getattr__(self, name: str) -> Any:
            # Python comes here for what has no value only: an empty field, or a name that does not exist, which
            # programs that read several kinds of data do ask for (`getattr(item, "sequential_id", 0)`).
            if name in self.__dataclass_fields__ and (rest := rest_of(self)) is not None:
                if (value := rest.alone(name)) is not NOT_ALONE:
                    _set(self, name, value)
                    return value
                for field, value in rest.values().items():
                    _set(self, field, value)
                if rest.habit is not None:
                    rest.habit.was_looked_at()
                # Last, for who comes here meanwhile. Two at once write equal values.
                _set_rest(self, None)
            return object.__getattribute__(self, name)


_set = object.__setattr__  # past the frozenness
_rest = HalfMade.__dict__["_rest"]
_get_rest, _set_rest = _rest.__get__, _rest.__set__
# leave(model, rest): its empty fields shall be made from `rest` when they are looked at.
leave = _set_rest


def rest_of(model: HalfMade) -> Any:
    """What its empty fields will be made from; None where it is whole."""
    try:
        return _get_rest(model)
    except AttributeError:  # it was made as any object is
        return None


SAMPLED_EVERY = 256


class Habit:
    """Whether models of one kind get looked at wholly, told by samples, so that nobody pays for the habits of others:
    made in two steps a whole one costs more than in one. A wrong guess costs time and nothing else."""

    __slots__ = ("_count", "_is_looked_at", "_is_thorough", "is_wanted")

    def __init__(self) -> None:
        self.is_wanted = True  # another sample
        self._is_looked_at = False  # a sample was, since the last judgement, however late
        self._is_thorough = False
        self._count = 0

    def is_half_enough(self) -> bool:
        """Whether the next one shall be made by half; `take` its rest then, if a sample `is_wanted`."""
        self._count += 1
        if self._count < SAMPLED_EVERY:
            return not self._is_thorough
        self._is_thorough, self._is_looked_at = self._is_looked_at, False
        self._count, self.is_wanted = 0, True
        return True

    def take(self, rest: Rest) -> None:
        """This one, which was made by half, is the sample that `is_wanted`."""
        self.is_wanted = False
        rest.habit = self

    def was_looked_at(self) -> None:
        """A sample was, wholly. From any thread."""
        self._is_looked_at = self._is_thorough = True
