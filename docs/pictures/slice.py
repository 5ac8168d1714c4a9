"""The picture of the README, of a drawn chest: python docs/pictures/slice.py"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "ground-glass.png"


def main() -> None:
    """Explain the example and keep its picture in 128 colours, which is small."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "groundglass", "explain", "--quiet", EXAMPLE.name, "-o", folder]
        subprocess.run(command, check=True, cwd=EXAMPLE.parent, stdout=subprocess.DEVNULL)
        (made,) = Path(folder).glob("*.png")
        picture = Image.open(made).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        picture.save(HERE / "slice.png", optimize=True)


if __name__ == "__main__":
    main()
