"""`recsys experiments`: what runs, the switches, and what an experiment needs and says.

Heavy imports are inside the verbs, as in `serving.cli.command`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.cli.experiment_stats import add_statistics
from serving.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, read_config
from serving.cli.output import reporting, table

__all__ = ["app"]

app = typer.Typer(
    name="experiments",
    help="Experiments: plan one, list them, stop one at once, start it again, analyse it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
add_statistics(app)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the experiment.")]


@app.command("list")
def list_all(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the configured experiments, what runs now, and who is in which arm."""
    with reporting(as_json) as out:
        import time

        settings = read_config(config)
        from serving.assembly import open_client, open_experiments

        states = open_experiments(settings, open_client(settings))[0].states(time.time())
        rows = [
            [
                one.name,
                one.state,
                one.layer or "",
                f"{one.traffic:.2%}",
                ", ".join(f"{arm} {share:.0%}" for arm, share in one.arms.items()),
                "" if one.start is None else one.start.isoformat(),
                "" if one.end is None else one.end.isoformat(),
            ]
            for one in states
        ]
        head = ["experiment", "state", "layer", "traffic", "arms", "start", "end"]
        text = table(head, rows) if rows else "no experiment; add [[experiments]]"
        out.emit({"experiments": [one._asdict() for one in states]}, text)


@app.command()
def stop(name: Name, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Switch an experiment off: from the next second on everybody gets what is configured."""
    _switch(name, config, on=False, as_json=as_json)


@app.command()
def start(name: Name, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Switch a stopped experiment on again: everybody is in the arm they were in."""
    _switch(name, config, on=True, as_json=as_json)


def _switch(name: str, config: Path, *, on: bool, as_json: bool) -> None:
    with reporting(as_json) as out:
        settings = read_config(config)
        from recsys.lookup import lookup
        from serving.assembly import open_client, open_experiments

        lookup({one.name: one for one in settings.experiments}, name, "experiment")
        switch = open_experiments(settings, open_client(settings))[1]
        if on:
            switch.start(name)
        else:
            switch.stop(name)
        state = "on" if on else "off"
        out.emit({"experiment": name, "switch": state}, f"experiment {name} is switched {state}")
