"""What the benchmarks share: models by name, the default measurement, a printed table."""

from collections.abc import Sequence

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from pepper import config
from pepper.config import PepperConfig
from pepper.config.composing import Composition


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration from command-line overrides."""
    config.register()
    with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return hydra_compose("run", overrides=list(overrides))


def composed(*overrides: str) -> PepperConfig:
    """Return the configuration that these command-line overrides make."""
    return config.typed(compose(overrides))


def composition(*overrides: str) -> Composition:
    """Return the same with what it was composed from."""
    return Composition(composed(*overrides), overrides, compose)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table with right-aligned figures."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=140, highlight=False).print(table)
