"""A recipe is read strictly: what it cannot mean is named, not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundglass.errors import ConfigError
from groundglass.learn.recipe import read_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.toml"))
GOOD = (FOLDER / "shipped" / "field.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_in_the_tree_is_valid_and_names_its_command(path: Path) -> None:
    recipe = read_recipe(path)
    assert path.stem == "own" or (path.parent / recipe.manifest).is_file()  # whose own pictures are not here
    assert f"groundglass train recipes/{path.relative_to(FOLDER).as_posix()}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("learning_rat = 1\n" + GOOD, "learning_rat"),
        (GOOD.replace("batch = 32", 'batch = "32"'), "batch"),
        (GOOD.replace("batch = 32", "batch = 1"), "batch"),
        (GOOD.replace("batch = 32", "batch = true"), "batch"),
        (GOOD.replace("epochs", "#"), "epochs"),
        (GOOD.replace('name = "field"', 'name = "../evil"'), "name"),
        (GOOD.replace("seed = 0", "seed = -1"), "seed"),
        (GOOD.replace("size = 160", "size = 161"), "size"),
        (GOOD.replace("learning_rate = 1e-3", "learning_rate = inf"), "learning_rate"),
        (GOOD.replace("mosmed = 0.15", "mosmed = true"), "source_share"),
        (GOOD.replace("refusals", "#"), "refusals"),
        ("= broken", "TOML"),
        (GOOD.replace("mosmed = 0.15", "mosmed = 0.0"), "source_share"),
        ("", "task"),
    ],
)
def test_a_wrong_recipe_is_refused_by_the_name_of_its_key(change: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(change, encoding="utf-8")
    with pytest.raises(ConfigError, match=named):
        read_recipe(path)
