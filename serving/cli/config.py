"""`recsys config show` and `recsys config reference`: the settings of a run, and all there are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, read_config
from serving.cli.output import reporting

if TYPE_CHECKING:
    from recsys.settings.reference import EffectiveSetting

__all__ = ["app"]

app = typer.Typer(help="The settings of a run, and all there are.", no_args_is_help=True)

_SECRET = ("KEY", "PASSWORD", "SECRET", "TOKEN")


@app.command()
def show(
    config: ConfigPath = DEFAULT_CONFIG,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what is not as by default.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the configuration in effect; what is not as by default is marked.

    Variables of the environment that go before it are named at the end, secrets without their
    values.
    """
    with reporting(as_json) as out:
        from recsys.settings.reference import effective

        settings = [
            one for one in effective(read_config(config)) if not (changed and one.is_default)
        ]
        environment = _environment()
        values = {
            "settings": {
                one.path: {"value": one.value, "default": one.is_default} for one in settings
            },
            "environment": environment,
        }
        lines = [*_lines(settings), *(f"{name}={value}" for name, value in environment.items())]
        out.emit(values, "\n".join(lines))


@app.command("reference")
def print_reference(as_json: AsJson = False) -> None:
    """Print every setting there is: what it may be, its default, what it means (Markdown)."""
    with reporting(as_json) as out:
        from recsys.config import Config
        from recsys.config.page import configuration_page
        from recsys.settings.reference import reference

        sections = reference(Config)
        values = {
            one.path or "(top)": [setting._asdict() for setting in one.settings] for one in sections
        }
        out.emit(values, configuration_page(sections).rstrip("\n"))


def _lines(settings: list[EffectiveSetting]) -> list[str]:
    """The settings as a file that could be read, those that are not defaults marked."""
    from recsys.settings.reference import toml_value

    lines: list[str] = []
    section = None
    for one in sorted(settings, key=lambda one: "." in one.path):
        table, _, name = one.path.rpartition(".")
        if table != section and table:
            lines += ["", f"[{table}]"]
        section = table
        said = "# not said: " + name if one.value is None else f"{name} = {toml_value(one.value)}"
        lines.append(said if one.is_default else f"{said}  # set")
    return lines


def _environment() -> dict[str, str]:
    """Variables of ours that are set; secrets hidden."""
    from recsys.config.store_url import redact

    found = {}
    for name, value in sorted(os.environ.items()):
        if name.startswith("RECSYS_"):
            hidden = any(word in name for word in _SECRET) and not name.endswith("_FILE")
            found[name] = "(hidden)" if hidden else redact(value) if "URL" in name else value
    return found
