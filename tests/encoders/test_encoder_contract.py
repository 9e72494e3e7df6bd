"""The contract of encoders, checked for every kind."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from media import named_graph
from mocme.cli import main
from mocme.core.registry import ConfigError, expand, settings
from mocme.encoders import kinds
from mocme.encoders.base import Encoder, EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of, kind_names, setting_docs

EVERY_KIND = pytest.mark.parametrize("kind", Encoder.kinds, ids=lambda kind: kind.kind_name())
EVERY_SETTING = pytest.mark.parametrize(
    ("kind", "setting"),
    [(kind, setting) for kind in Encoder.kinds for setting in settings(kind)],
    ids=lambda value: value if isinstance(value, str) else value.kind_name(),
)
# Settings with an option of their own on the command line, which --help describes there.
OPTIONS = {"paths", "entity", "columns", "attributes", "delimiter"}


def smallest_table(kind: type[Encoder]) -> dict[str, Any]:
    """A table with the required settings only."""
    values = {str: "x", Sequence[str]: ["x"]}
    required = {
        name: values[hint]
        for name, (hint, default) in settings(kind).items()
        if default is inspect.Parameter.empty
    }
    return {"kind": kind.kind_name(), **required}


# -- kinds ---------------------------------------------------------------------------------------


def test_each_module_defines_one_kind_with_its_name() -> None:
    modules = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))
    assert kind_names() == modules
    assert {"numeric", "words", "bins", "codes", "text", "image", "audio", "video"} <= set(modules)


def test_names_of_kinds_are_unique() -> None:
    assert len(set(kind_names())) == len(Encoder.kinds)


@EVERY_KIND
def test_the_name_of_a_kind_is_lower_case_and_that_of_its_class(kind: type[Encoder]) -> None:
    name = kind.kind_name()
    assert name.isascii()
    assert name.islower()
    assert kind.__name__ == f"{name.capitalize()}Encoder"


@EVERY_KIND
def test_the_name_of_a_kind_may_be_capitalised_in_a_table(kind: type[Encoder]) -> None:
    table = {**smallest_table(kind), "kind": kind.kind_name().capitalize()}
    assert isinstance(encoder_of(table, "encode.x"), kind)


# -- settings ------------------------------------------------------------------------------------


@EVERY_KIND
def test_settings_are_the_fields_of_a_frozen_dataclass(kind: type[Encoder]) -> None:
    assert dataclasses.is_dataclass(kind)
    encoder = encoder_of(smallest_table(kind), "encode.x")
    fields = dataclasses.fields(kind)
    assert all(field.kw_only and field.init for field in fields)
    assert [field.name for field in fields] == list(settings(kind))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(encoder, fields[0].name, "x")


@EVERY_KIND
def test_every_setting_is_described_and_nothing_else(kind: type[Encoder]) -> None:
    docs = setting_docs(kind)
    assert set(docs) == set(settings(kind))
    assert all(description.strip().endswith(".") for description in docs.values())


@EVERY_SETTING
def test_a_setting_is_declared_and_described_in_one_class(
    kind: type[Encoder], setting: str
) -> None:
    declaring = [part for part in kind.__mro__ if setting in inspect.get_annotations(part)]
    assert len(declaring) == 1
    assert setting in setting_docs(declaring[0])
    assert not any(setting in setting_docs(part) for part in declaring[0].__mro__[1:])


@EVERY_KIND
def test_the_help_of_a_kind_describes_its_settings(kind: type[Encoder]) -> None:
    result = CliRunner().invoke(main, ["encode", kind.kind_name(), "--help"])
    _, _, described = result.output.partition("Settings, with --set:\n")
    for setting, description in setting_docs(kind).items():
        line = f"    {setting}: {description}\n"
        assert (line in described) == (setting not in OPTIONS), setting


@EVERY_KIND
def test_an_expanded_table_builds_the_same_encoder(kind: type[Encoder]) -> None:
    table = smallest_table(kind)
    expanded = expand(Encoder, table, "encode.x")
    assert expand(Encoder, expanded, "encode.x") == expanded
    encoder = encoder_of(expanded, "encode.x")
    assert encoder == encoder_of(table, "encode.x")
    assert expanded.pop("kind") == kind.kind_name()
    # A setting without a value is absent; a list comes back as a list.
    values = {name: getattr(encoder, name) for name in settings(kind)}
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    assert {name: value for name, value in plain.items() if value is not None} == expanded


@EVERY_KIND
def test_an_unknown_setting_is_an_error_with_its_path(kind: type[Encoder]) -> None:
    table = {**smallest_table(kind), "no_such_setting": 1}
    with pytest.raises(ConfigError, match=r"^encode\.x\.no_such_setting: unknown setting; known: "):
        encoder_of(table, "encode.x")


@EVERY_SETTING
def test_a_misspelt_setting_is_an_error_with_a_suggestion(
    kind: type[Encoder], setting: str
) -> None:
    table = {**smallest_table(kind), f"{setting}x": 1}
    with pytest.raises(ConfigError, match=rf"^encode\.x\.{setting}x: .* did you mean '{setting}'"):
        encoder_of(table, "encode.x")


@EVERY_SETTING
def test_a_value_of_a_wrong_type_is_an_error_with_its_path(
    kind: type[Encoder], setting: str
) -> None:
    table = {**smallest_table(kind), setting: {"a": "table"}}
    with pytest.raises(ConfigError, match=rf"^encode\.x\.{setting}: "):
        encoder_of(table, "encode.x")


@EVERY_KIND
def test_a_missing_setting_is_an_error_with_its_path(kind: type[Encoder]) -> None:
    table = smallest_table(kind)
    for setting in [name for name in table if name != "kind"]:
        rest = {name: value for name, value in table.items() if name != setting}
        with pytest.raises(ConfigError, match=rf"^encode\.x\.{setting}: is missing"):
            encoder_of(rest, "encode.x")


# -- encoding ------------------------------------------------------------------------------------


@EVERY_KIND
def test_a_missing_input_is_an_error_that_names_the_file(
    kind: type[Encoder], tmp_path: Path
) -> None:
    table = smallest_table(kind)
    encoder = encoder_of(table, "encode.x")
    expected = r"encoded.x\.safetensors" if encoder.needs() else r"x: there is no such file"
    with pytest.raises(ValueError, match=expected):
        encoder.encode(EncodingJob(named_graph(["e"]), "it", tmp_path, tmp_path))
    assert not (tmp_path / "encoded" / "it.safetensors").exists()


@EVERY_KIND
def test_an_encoder_needs_what_it_is_made_from(kind: type[Encoder]) -> None:
    table = smallest_table(kind)
    needed = [table["of"]] if "of" in table else []
    assert list(encoder_of(table, "encode.x").needs()) == needed


# -- encoders of the user's own -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataclassEncoder(Encoder):
    """An encoder of a user, with fields.

    Args:
        size: a number.
    """

    size: int = 3

    def encode(self, job: EncodingJob) -> EncodingReport:
        return EncodingReport(job.name, self.kind_name(), width=self.size)


class PlainEncoder(Encoder):
    """An encoder of a user, with a constructor.

    Args:
        size: a number.
    """

    def __init__(self, *, size: int = 3) -> None:
        self.size = size

    def encode(self, job: EncodingJob) -> EncodingReport:
        return EncodingReport(job.name, self.kind_name(), width=self.size)


@pytest.mark.parametrize("kind", [DataclassEncoder, PlainEncoder])
def test_a_class_of_the_user_is_an_encoder(kind: type[Encoder], tmp_path: Path) -> None:
    name = f"{__name__}:{kind.__name__}"
    encoder = encoder_of({"kind": name, "size": 5}, "encode.x", trust_code=True)
    report = encoder.encode(EncodingJob(named_graph(["e"]), "it", tmp_path, tmp_path))
    assert (report.kind, report.width) == (kind.kind_name(), 5)
    assert setting_docs(kind) == {"size": "a number."}
    with pytest.raises(ConfigError, match=r"^encode\.x\.size: must be an integer"):
        encoder_of({"kind": name, "size": "5"}, "encode.x", trust_code=True)
