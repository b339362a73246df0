"""Recipes from YAML: the built-in ones, parameters, groups, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnigen_actor.errors import ConfigError
from pipelines.recipes.loading import built_in, load_recipe, read_recipe

ROW = "rows: [{id: '{id}', task: text_to_image, instruction: '{caption}'}]"


def load(folder: Path, text: str, **settings: object) -> object:
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_recipe(str(path), settings)


def test_the_built_in_recipes_need_captions_or_images_and_say_what_they_make() -> None:
    assert built_in() == [
        "controlnet",
        "demo-chain",
        "edit-pairs",
        "in-context",
        "stepwise",
        "subject-sets",
        "x2i-mix",
    ]
    for name in built_in():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert len(recipe.description) > 40
        assert all(group.columns <= {"caption", "image"} for group in recipe.groups)


def test_the_columns_of_a_recipe_are_the_names_that_nothing_gives_a_value() -> None:
    needs = {name: sorted(load_recipe(name).groups[0].columns) for name in built_in() if name != "x2i-mix"}
    assert needs == {
        "controlnet": ["caption", "image"],
        "demo-chain": ["caption", "image"],
        "edit-pairs": ["image"],
        "in-context": ["image"],
        "stepwise": ["caption"],
        "subject-sets": ["image"],
    }
    mix = {group.name: sorted(group.columns) for group in load_recipe("x2i-mix").groups}
    assert mix == {
        "text_to_image": ["caption"],
        "editing": ["image"],
        "subject": ["image"],
        "vision": ["image"],
        "condition": ["caption", "image"],
        "in_context": ["image"],
    }


def test_a_parameter_is_replaced_and_shares_follow_it() -> None:
    mix = load_recipe("x2i-mix", {"text_to_image": 0, "editing": 7.5})
    assert {group.name: group.share for group in mix.groups}["text_to_image"] == 0
    assert {group.name: group.share for group in mix.groups}["editing"] == 7.5


def test_a_recipe_can_use_another_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(f"parameters: {{caption: null}}\n{ROW}")
    text = (
        "groups: [{name: own, share: 2, use: one.yaml, with: {caption: fixed}}, "
        f"{{name: other, {ROW.replace('{caption}', 'x')}}}]"
    )
    path = tmp_path / "both.yaml"
    path.write_text(text)
    recipe = load_recipe(str(path))
    assert [(group.name, group.share, group.columns) for group in recipe.groups] == [
        ("own", 2, frozenset()),
        ("other", 1, frozenset()),
    ]


def test_a_parameter_without_a_value_must_be_a_column(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(f"parameters: {{caption: null}}\n{ROW}")
    assert load_recipe(str(tmp_path / "one.yaml")).groups[0].columns == {"caption"}
    assert load_recipe(str(tmp_path / "one.yaml"), {"caption": "x"}).groups[0].columns == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a mapping"),
        ("rows: []", "rows must be a list"),
        ("description: x", "either rows or groups"),
        (f"{ROW}\ngroups: [{{name: a, {ROW}}}]", "either rows or groups"),
        ("rows: [{id: x}]", "needs task"),
        ("rows: [{id: x, task: edit, instruction: 'a } b'}]", "brace that is no mark"),
        (f"row: 1\n{ROW}", "unknown key 'row'; did you mean rows"),
        (f"take: 0\n{ROW}", "between 1 and 16"),
        (f"take: '2'\n{ROW}", "must be a whole number"),
        ("rows: [{id: '{2.id}', task: edit}]", "there is no source row 2"),
        (f"parameters: {{id: 4}}\n{ROW}", "'id' can't be a name"),
        (f"choose: {{'a b': [1]}}\n{ROW}", "'a b' can't be a name"),
        (f"choose: {{a: {{count: 2}}}}\n{ROW}", "a choice needs 'from'"),
        ("rows: [{id: x, task: edit, extra: {a: 1}}]", "a cell is text, a number or a list"),
        (f"groups: [{{name: a, share: -1, {ROW}}}]", "share=-1"),
        (f"groups: [{{name: a, share: '{{s}}', {ROW}}}]", "no parameter s"),
        (f"groups: [{{name: a, share: 0, {ROW}}}]", "no group has a share above 0"),
        (f"groups: [{{name: a, {ROW}}}, {{name: a, {ROW}}}]", "the same name"),
        (f"groups: [{{{ROW}}}]", "a group needs a name"),
        ("groups: [{name: a, use: x2i-mix}]", "has 6 groups"),
        ("groups: [{name: a, use: mine.yaml}]", "uses itself"),
        ("groups: [{name: a, use: edit-pairs, with: {number: 1}}]", "unknown parameter 'number'"),
        ("rows: [", "mine.yaml: "),
    ],
)
def test_what_can_not_work_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe .*") as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean edit-pairs"):
        read_recipe("edit-pair")
    with pytest.raises(ConfigError, match="controlnet, demo-chain"):
        read_recipe("nothing like it")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: can't be read"):
        read_recipe("nowhere.yaml")


def test_an_unknown_parameter_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown parameter 'num_scene'; did you mean num_scenes"):
        load_recipe("subject-sets", {"num_scene": 3})
