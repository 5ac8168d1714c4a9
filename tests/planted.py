"""A harness whose inputs break each law in turn. The tests of the fuzz start it."""

from __future__ import annotations

import os
import time
from random import Random

from fuzz.laws import Broken


class Planted:
    """Whole, broken, of an exception that nobody lists, dead, silent; then whole for ever."""

    families = dict.fromkeys(("whole", "broken", "unlisted", "dead", "silent", "whole again"))

    def __enter__(self) -> Planted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def one(self, family: str, rng: Random) -> str:
        match family:
            case "broken":
                raise Broken("a law", "does not hold")
            case "unlisted":
                raise KeyError("x")
            case "dead":
                os._exit(7)
            case "silent":
                time.sleep(600)
        return f"{rng.random():.6f}" if family == "whole" else "whole"


HARNESS = Planted
