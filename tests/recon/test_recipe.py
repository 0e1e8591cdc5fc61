"""Recipes: validated, the same hash everywhere, and names from the wire that are nothing but keys."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.errors import RecipeError
from recon.recipe import CATALOGUE, METHOD_PARAMETERS, PARAMETERS, Recipe, Value, apply_text, resolve, with_settings


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    method = draw(st.sampled_from(sorted(METHOD_PARAMETERS)))
    values: dict[str, Value] = {}
    for name in draw(st.sets(st.sampled_from(sorted(PARAMETERS)))) & set(METHOD_PARAMETERS[method]):
        parameter = PARAMETERS[name]
        if parameter.choices:
            values[name] = draw(st.sampled_from(parameter.choices))
        elif isinstance(parameter.default, bool):
            values[name] = draw(st.booleans())
        elif isinstance(parameter.default, int):
            values[name] = draw(st.integers(int(parameter.minimum), int(parameter.maximum)))
        else:
            values[name] = draw(st.floats(parameter.minimum, parameter.maximum))
    if values.get("output", "magnitude") != "magnitude":
        values.pop("combine", None)
    needs_phase = values.get("output", "magnitude") != "magnitude" or values.get("partial_fourier", "off") != "off"
    if needs_phase or values.get("maps") == "walsh":
        values.pop("sets", None)
    if values.get("window"):
        values.pop("respiration", None)
    if values.get("snr") == "analytic":
        values.pop("snr")
    return Recipe(method, values)


@given(recipes())
def test_a_recipe_survives_its_json(recipe: Recipe) -> None:
    again = resolve(recipe.to_json())
    assert again == recipe and again.hash == recipe.hash and hash(again) == hash(recipe)
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@given(recipes(), recipes())
def test_hashes_differ_where_recipes_do(one: Recipe, other: Recipe) -> None:
    assert (one.hash == other.hash) == (one == other)


def test_the_hash_is_the_same_on_every_machine() -> None:
    # By `sha256sum` of {"method":"null","parameters":{}}.
    assert Recipe("null").hash == "60d686dd50497d332592f3266ce6ddd9d64b7c2c377c58805bd7066776eebf36"


def test_defaults_and_what_equals_them_are_the_same_recipe() -> None:
    assert Recipe("fft") == Recipe("fft", {"combine": "rss", "whiten": True})


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_name_of_the_catalogue_resolves(name: str) -> None:
    assert resolve(name) == CATALOGUE[name] == resolve(f"{name}\0")


def test_names_of_existing_clients_are_known() -> None:
    assert {"default.xml", "simplefft", "openrecon", "null", "Generic_Cartesian_Grappa.xml"} <= set(CATALOGUE)
    assert resolve("simplefft") == Recipe("fft")
    assert resolve("Generic_Cartesian_Grappa.xml") == Recipe("grappa")


@pytest.mark.parametrize("name", ["../../etc/passwd", "os.system", "", "FFT", "$HOME", "x" * 10_000])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(name)
    message = str(caught.value)
    names = "auto, fft, grappa, slice-grappa, gridding, sense, cg-sense, l1-wavelet, tv, grasp, llr, cine, null"
    assert f"is unknown, expected one of {names}" in message
    assert len(message) < 600


def test_overrides_go_on_top() -> None:
    assert resolve("fft", {"combine": "adaptive"}) == Recipe("fft", {"combine": "adaptive"})


def test_a_text_sets_parameters() -> None:
    assert apply_text(Recipe("fft"), '{"output": "complex"}') == Recipe("fft", {"output": "complex"})
    assert apply_text(Recipe("fft"), '{"parameters": {"whiten": false}}') == Recipe("fft", {"whiten": False})
    assert apply_text(Recipe("fft"), '{"method": "cg-sense", "iterations": 3}') == Recipe("cg-sense", {"iterations": 3})


def test_a_text_as_fire_clients_send_it() -> None:
    text = json.dumps({"version": "1.0", "parameters": {"config": "openrecon", "customconfig": "", "whiten": "False"}})
    assert apply_text(Recipe("fft"), text) == Recipe("auto", {"whiten": False})


def test_what_was_set_before_stays() -> None:
    once = apply_text(Recipe("fft"), '{"combine": "adaptive"}')
    assert apply_text(once, '{"oversampling": "keep"}')["combine"] == "adaptive"


def test_numbers_may_come_as_texts() -> None:
    assert Recipe("cg-sense", {"iterations": "12", "lambda": "1e-2"}) == Recipe(
        "cg-sense", {"iterations": 12, "lambda": 0.01}
    )


@pytest.mark.parametrize("output", ["phase", "complex", "real"])
def test_an_output_with_phase_takes_the_adaptive_combination(output: str) -> None:
    assert Recipe("fft", {"output": output})["combine"] == "adaptive"


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        (
            "grappa9",
            {},
            "the method is 'grappa9', expected one of auto, fft, grappa, slice-grappa, gridding, sense, cg-sense",
        ),
        ("fft", {"depth": 3}, "the parameter 'depth' is unknown to the method fft, which has acceptance, bins, coils,"),
        ("null", {"combine": "rss"}, "unknown to the method null, which has none"),
        ("fft", {"coils": 0}, "the parameter coils is 0, expected one of all, auto, or a whole number from 1 to 1024"),
        ("fft", {"coils": "some"}, "the parameter coils is 'some', expected one of all, auto, or a whole number"),
        ("fft", {"coils": 2.5}, "the parameter coils is 2.5, expected one of all, auto, or a whole number"),
        ("fft", {"combine": "sum"}, "the parameter combine is 'sum', expected one of rss, adaptive"),
        ("fft", {"whiten": 1}, "the parameter whiten is 1, expected true or false"),
        ("cg-sense", {"iterations": 0}, "the parameter iterations is 0, expected a whole number from 1 to 1000"),
        ("cg-sense", {"iterations": 2.5}, "the parameter iterations is 2.5, expected a whole number"),
        ("cg-sense", {"iterations": True}, "the parameter iterations is True, expected a whole number"),
        ("cg-sense", {"lambda": "many"}, "the parameter lambda is 'many', expected a number from 0 to 1e"),
        ("cg-sense", {"lambda": float("nan")}, "the parameter lambda is nan, expected a number"),
        ("cg-sense", {"lambda": [1]}, r"the parameter lambda is \[1\], expected a number"),
        ("cg-sense", {"lambda": 10**400}, "the parameter lambda is 1000.*, expected a number"),
        ("fft", {"combine": "rss", "output": "complex"}, "combine is rss, which has no phase, but output is complex"),
    ],
)
def test_what_makes_no_sense_is_refused(method: str, parameters: dict[str, Value], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(method, parameters)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the text is not JSON"),
        ('{"parameters": 3}', "parameters is 3, expected a JSON object"),
        ('{"config": "unheard"}', "the configuration 'unheard' is unknown"),
        ('{"config": ["fft"]}', r"the configuration \['fft'\] is unknown"),
        ('{"customconfig": "x"}', "the parameter 'customconfig' is unknown"),
        ('{"iterations": ' + "[" * 100_000, "the text is not JSON"),
    ],
)
def test_a_text_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(text)


def test_a_list_is_no_recipe() -> None:
    with pytest.raises(RecipeError, match="the JSON text is \\[1\\], expected an object"):
        apply_text(Recipe(), "[1]")


def test_defaults_are_the_methods_own() -> None:
    assert (Recipe("cg-sense")["iterations"], Recipe("l1-wavelet")["iterations"]) == (10, 30)
    assert resolve("l1-wavelet", {"strength": 2}) == Recipe("l1-wavelet", {"strength": 2.0, "iterations": 30})
    assert resolve('{"method": "tv", "parameters": {"iterations": 10}}', {"strength": 2})["iterations"] == 10


def test_several_sets_of_maps_need_espirit_and_have_no_phase() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe("cg-sense", {"sets": 2, "maps": "walsh"})
    assert str(caught.value) == "sets is 2, but maps walsh makes one set: ask for maps espirit or sets 1"
    with pytest.raises(RecipeError) as caught:
        Recipe("tv", {"sets": 2, "output": "phase"})
    assert str(caught.value) == (
        "sets is 2, whose images are combined without phase, but output is phase: ask for output magnitude or sets 1"
    )


def test_coils_are_a_word_or_a_number() -> None:
    assert [Recipe("fft", {"coils": given})["coils"] for given in ("auto", "8", 8, 8.0)] == ["auto", 8, 8, 8]
    assert Recipe("fft")["coils"] == "all"


def test_settings_go_on_top_of_a_name_or_a_text() -> None:
    settings = {"iterations": "20", "lambda": "1e-2"}
    expected = Recipe("cg-sense", {"iterations": 20, "lambda": 0.01})
    assert resolve(with_settings("cg-sense", settings)) == expected
    assert resolve(with_settings('{"method": "cg-sense", "iterations": 3}', settings)) == expected
    assert resolve(with_settings('{"parameters": {"output": "complex"}}', {"whiten": "false"})) == Recipe(
        "auto", {"output": "complex", "whiten": False}
    )
    assert resolve(with_settings("Generic_Cartesian_Grappa.xml", {"coils": "8"})) == Recipe("grappa", {"coils": 8})
    assert with_settings("fft", {}) == "fft"
