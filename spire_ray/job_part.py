"""`--part 3/16`: one driver's share of the shards, so that several drivers work on one OUT at the same time."""

from collections.abc import Iterable
from dataclasses import dataclass

from spire_ray.errors import UserError
from spire_ray.plan import Shard


@dataclass(frozen=True)
class JobPart:
    """Part `number` of `of`, counted from 1. Shards are dealt out in turn, so parts differ by one shard at most."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "JobPart":
        """From `3/16`. UserError for anything else."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise UserError(f"--part {text}: give NUMBER/OF, counted from 1, like 3/16")
        return cls(int(number), int(of))

    def own(self, shards: Iterable[Shard]) -> list[Shard]:
        """Those of `shards` that this part does."""
        return [shard for shard in shards if shard.index % self.of == self.number - 1]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


WHOLE = JobPart()
