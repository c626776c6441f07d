"""``task=doctor``: what hurts measurement here, and how to mend it."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from pepper.config import TrackingConfig
from pepper.config.composing import Composition
from pepper.console.output import add_results
from pepper.console.tables import finding_line, show
from pepper.devices.calibration_checkup import calibration_checkup
from pepper.devices.checkup import FAIL, OK, WARN, Finding, checkup
from pepper.devices.runtime_checkup import runtime_checkup
from pepper.errors import PepperError
from pepper.packages import ONNXRUNTIME, XGBOOST
from pepper.tasks.result import Result
from pepper.tracking.outbox import import_command
from pepper.tracking.posting import waiting
from pepper.tracking.store import Store, check_folder, check_writable

PACKAGES = ("onnx", "numpy", "mlflow", "optuna", "pandas", "hydra-core")
PLENTY_BYTES = 2**30


def doctor(composition: Composition) -> Result:
    """Look at the machine, the packages and the tracking store.

    Returns:
        Its status is 0, or 1 if something keeps pepper from working.
    """
    config = composition.config
    machine = [*checkup(), calibration_checkup(config.device)]
    findings = [*machine, _packages(), *runtime_checkup(), *_tracking(config.tracking)]
    for finding in findings:
        line = finding_line(**asdict(finding))
        show(line)
        if config.is_quiet and finding.level != OK:
            print(line.plain, file=sys.stderr)
    add_results(findings=[asdict(finding) for finding in findings])
    counts = {level: sum(finding.level == level for finding in findings) for level in (OK, WARN, FAIL)}
    show(", ".join(f"{count} {level}" for level, count in counts.items()), counts=counts)
    return Result(1 if counts[FAIL] else 0)


def _packages() -> Finding:
    from packaging.requirements import Requirement

    try:
        lines = [Requirement(line) for line in requires("pepper-harness") or ()]
        full = [each for each in lines if each.marker is None or each.marker.evaluate({"extra": "full"})]
        wanted = [each for each in full if each.name not in (ONNXRUNTIME[0], XGBOOST[0])]
    except PackageNotFoundError:  # run from a checkout that is not installed: only their presence can be told
        wanted = [Requirement(name) for name in PACKAGES]
    found = {each.name: _version(each.name) for each in wanted}
    for each in wanted:
        have = found[each.name]
        if have is None or not each.specifier.contains(have, prereleases=True):
            return Finding(FAIL, "packages", f"{each.name} is {have or 'absent'}", f"pip install '{each}'")
    return Finding(OK, "packages", ", ".join(f"{name} {found[name]}" for name in PACKAGES))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _tracking(config: TrackingConfig) -> Iterator[Finding]:
    """Look at the folder, then at the store: the second makes no sense without the first."""
    folder = Path(config.folder)
    try:
        check_folder(folder)
        free = shutil.disk_usage(folder).free
        level, fix = (OK, "") if free >= PLENTY_BYTES else (WARN, "free some: a sweep of 1,000 cells takes about 50 MB")
        yield Finding(level, "disk", f"{free / 2**30:.1f} GiB free for {folder}", fix)
        store = Store(config)
        check_writable(store)
        yield Finding(OK, "tracking store", f"{config.uri} answers and can be written")
        count = len(waiting(folder))
    except PepperError as error:
        found, _, fix = str(error).rpartition("; ")
        yield Finding(FAIL, "tracking", found, fix)
    else:
        level, fix = (WARN, import_command(config.folder)) if count else (OK, "")
        yield Finding(level, "waiting results", f"{count} wait to be logged", fix)
