"""``python -m pepper.run``: Hydra in, one task out."""

import contextlib
import importlib
import itertools
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pepper
from pepper import config
from pepper.config import OutputMode
from pepper.config.composing import Composition, explain, recompose, with_names
from pepper.config.option_files import check_option_files
from pepper.config.overrides import prepared
from pepper.console.output import add_results, speaking
from pepper.console.streams import discard, lasting, reopen_closed
from pepper.errors import ConfigError, PepperError, nearest
from pepper.interrupts import Interrupted, listening
from pepper.scratch import own_temporary_folder

STATUS_ERROR = 2


FULL = {"jinja2", "matplotlib", "mlflow", "optuna", "pandas", "plotly", "pyarrow", "scipy", "xgboost"}
"""What the extra ``full`` brings: a board that only measures has none of it."""


@dataclass(frozen=True)
class Task:
    """A task, imported only when asked for.

    Attributes:
        module: Where it is.
        function: What runs it: from a `Composition` to a `pepper.tasks.result.Result`.
        kept: What is kept of it where it is interrupted: the same command goes on from there.
    """

    module: str
    function: str
    kept: str | None = None

    def run(self, composition: Composition) -> int:
        """Run it, and return the exit status.

        Raises:
            ConfigError: It needs more than what is installed.
        """
        try:
            return int(getattr(importlib.import_module(self.module), self.function)(composition).status)
        except ModuleNotFoundError as error:
            if error.name in FULL:
                raise ConfigError(
                    f"task={composition.config.task.name}: needs {error.name}; pip install 'pepper-harness[cpu]', or"
                    " give the task on the head that this machine joins"
                ) from error
            raise


TASKS = {
    "profile": Task("pepper.tasks.profile", "profile", "finished cells"),
    "adapt": Task("pepper.tasks.adapt", "adapt", "finished cells"),
    "train": Task("pepper.tasks.train", "train", "finished trials"),
    "promote": Task("pepper.tasks.promote", "promote"),
    "predict": Task("pepper.tasks.predict", "predict"),
    "cuts": Task("pepper.tasks.cuts", "list_cuts"),
    "split": Task("pepper.tasks.split", "split"),
    "place": Task("pepper.tasks.place", "place"),
    "execute": Task("pepper.tasks.execute", "execute"),
    "quickstart": Task("pepper.tasks.quickstart", "quickstart", "finished cells and trials"),
    "compare": Task("pepper.tasks.compare", "compare"),
    "report": Task("pepper.tasks.report", "report"),
    "import": Task("pepper.tasks.import_results", "import_results"),
    "export": Task("pepper.tasks.export", "export"),
    "export_data": Task("pepper.tasks.export_data", "export_data"),
    "serve": Task("pepper.service.serve", "serve"),
    "doctor": Task("pepper.tasks.doctor", "doctor"),
    "head": Task("pepper.tasks.hosts", "head"),
    "join": Task("pepper.tasks.hosts", "join"),
    "fleet": Task("pepper.tasks.hosts", "fleet"),
}

# Hydra's flags whose value stands behind them; and what an override looks like.
VALUED_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p")
OVERRIDE = re.compile(r"~|\+{0,2}\w[^=]*=")

# The configuration's groups, in the order in which --help lists them.
GROUPS = (
    "task",
    "model",
    "device",
    "load",
    "measure",
    "sweep",
    "cuts",
    "split",
    "latency",
    "tuning",
    "fleet",
    "link",
    "objective",
    "tracking",
)

HELP = """\
pepper: profile ONNX models on devices under load, learn their latency, place their parts.

usage: python -m pepper.run [GROUP=OPTION] [KEY=VALUE] [+sweep=NAME] [--config-dir DIR]

  python -m pepper.run                                    profile one model on this machine, idle
  python -m pepper.run +sweep=loads                       models x devices x loads
  python -m pepper.run model=resnet50 device.threads=1    another model, one thread
  python -m pepper.run model=onnx model.path=my.onnx model.shapes.input=[1,3,640,640]
  python -m pepper.run +sweep=loads model=resnet50 sweep.rerun=all
  python -m pepper.run task=cuts model=resnet50           where it can be cut
  python -m pepper.run task=split model=resnet50 split.parts=4 split.out=parts
  python -m pepper.run task=place model=resnet50 place.out=placed     which device runs which part
  python -m pepper.run task=execute execute.plan=placed/plan.json     is that so?
  python -m pepper.run task=export export.plan=placed/plan.json export.out=pipeline     for systemd, Compose or K3s
  python -m pepper.run task=quickstart                    all of it in ten minutes
  python -m pepper.run task=doctor                        what hurts measurement here
  python -m pepper.run task=report                        one HTML file that shows it all

{groups}
output=json prints one JSON document for scripts, output=quiet problems only.
Any key can be set: KEY=VALUE; --cfg job prints them all, conf/ explains each.
--config-dir DIR adds your own options (DIR/model/mine.yaml: model=mine).
--version says which pepper this is, --hydra-help lists Hydra's own flags (shell completion: --shell-completion).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the task that the command line asks for and return the exit status."""
    argv = _in_order(list(sys.argv[1:] if arguments is None else arguments))
    reopen_closed()
    try:
        with lasting():
            return _said(argv)
    except BrokenPipeError:  # whoever reads the output has seen enough, as with `| head`
        discard(sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except PepperError as error:
        print(f"error: {error}", file=sys.stderr)
        return STATUS_ERROR


def _said(argv: list[str]) -> int:
    """Answer what needs no configuration, else run the task; returns the exit status."""
    try:
        for folder in _own_folders(argv):
            check_option_files(folder, GROUPS)
    except ConfigError as error:
        return _refuse_at_once(argv, error)
    if {"--help", "-h"} & set(argv):
        print(HELP.format(groups=_groups(argv)))
        return 0
    if "--version" in argv:
        print(f"pepper {pepper.__version__}")
        return 0
    try:
        with listening(), own_temporary_folder():
            return _hydra(argv)
    except KeyboardInterrupt as stop:
        ended = stop if isinstance(stop, Interrupted) else Interrupted()
        print(": ".join((ended.word, *stop.args)), file=sys.stderr)
        return ended.status


def _in_order(argv: list[str]) -> list[str]:
    """Put flags before overrides: Hydra wants it so, people write them as they come to mind."""
    flags = ["", *argv]
    overrides = [
        argument
        for before, argument in itertools.pairwise(flags)
        if before not in VALUED_FLAGS and OVERRIDE.match(argument)
    ]
    return [argument for argument in argv if argument not in overrides] + overrides


def _own_folders(argv: Sequence[str]) -> list[Path]:
    """Return the folders of the user's own options."""
    joined = [flag.partition("=")[2] for flag in argv if flag.startswith("--config-dir=")]
    return [Path(folder) for folder in joined] + [
        Path(value) for flag, value in itertools.pairwise(argv) if flag in ("--config-dir", "-cd")
    ]


def _groups(argv: Sequence[str]) -> str:
    """List every option with the first line of its file."""
    roots = [config.conf_dir(), *_own_folders(argv)]
    lines = []
    for group in GROUPS:
        lines.append(f"{'+' if group == 'sweep' else ''}{group}=")
        for file in sorted(file for root in roots for file in (root / group).glob("*.yaml") if file.is_file()):
            with file.open() as stream:
                summary = stream.readline().strip("# .\n")
            lines.append(f"  {file.stem:<14} {summary}")
    return "\n".join(lines) + "\n"


def _hydra(argv: list[str]) -> int:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    config.register()
    statuses = []
    try:
        readable, named = prepared(argv, multirun=bool({"-m", "--multirun"} & set(argv)))
    except PepperError as error:
        return _refuse_at_once(argv, error)

    def job(cfg: DictConfig) -> None:
        overrides = [*HydraConfig.get().overrides.task, *named]
        refusals = (PepperError, HydraException, OmegaConfBaseException)
        try:  # here: Hydra would print all overrides before it passes an error on
            settings = config.typed(with_names(cfg, named))
        except refusals as error:
            statuses.append(_refuse_at_once(argv, error))
            return
        with _ending_with_reader(statuses), speaking(settings.output) as results:
            results["task"] = settings.task.name
            try:
                statuses.append(_task(settings.task.name).run(Composition(settings, tuple(overrides), recompose)))
            except refusals as error:
                statuses.append(_refuse(error))
            except KeyboardInterrupt as stop:
                if kept := TASKS[settings.task.name].kept:
                    stop.args = (*stop.args, f"{kept} are kept; the same command goes on from here")
                raise
            results["status"] = statuses[-1]

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here whole; pepper says them in a line
    before, sys.argv[1:] = sys.argv[1:], readable
    try:
        hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name="run")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse_at_once(argv, error)
    finally:
        sys.argv[1:] = before
    return max(statuses, default=0)


@contextlib.contextmanager
def _ending_with_reader(statuses: list[int]) -> Iterator[None]:
    """End a task whose reader has seen enough, as with `| head`, before Hydra says all overrides about it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout.fileno())
        statuses.append(128 + signal.SIGPIPE)


def _task(name: str) -> Task:
    if name not in TASKS:
        raise PepperError(f"task.name={name}: no such task{nearest(name, TASKS)}")
    return TASKS[name]


def _refuse_at_once(argv: Sequence[str], error: Exception) -> int:
    """Refuse what could not be composed; a script that asked for a document gets one all the same."""
    with speaking(OutputMode.json if "output=json" in argv else OutputMode.text) as results:
        results["status"] = _refuse(error, argv)
    return STATUS_ERROR


def _refuse(error: Exception, argv: Sequence[str] = ()) -> int:
    """Say in one line what is wrong and return the exit status."""
    said = str(error) if isinstance(error, PepperError) else explain(error, argv)
    line = " ".join(said.splitlines())  # a name that it shows may have several
    print(f"error: {line}", file=sys.stderr)
    add_results(error=line)
    return STATUS_ERROR


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # before and after `main`, Ctrl-C ends without a traceback
    sys.exit(main())
