"""From what clients ask for to the command lines of jobs."""

from pepper.service.answers import Answers
from pepper.service.jobs import HOME, Job, JobStore
from pepper.service.requests import PlaceAsked, ProfileAsked, Sizes, SplitAsked
from pepper.service.running import JobRunner
from pepper.service.shelf import Shelf
from pepper.service.tokens import Token

PARTS = "parts"
"""The folder of a job's parts, in its own; placements name it so, too."""


class Orders:
    """Takes jobs.

    Args:
        answers: Knows the service's own command line.
        shelf: The models.
        store: The jobs.
        runner: Runs them.
        flags: What stands before the overrides of a command line.
    """

    def __init__(
        self, answers: Answers, shelf: Shelf, store: JobStore, runner: JobRunner, flags: tuple[str, ...]
    ) -> None:
        self._answers, self._shelf, self._flags = answers, shelf, flags
        self.store, self.runner = store, runner

    def place(self, asked: PlaceAsked, who: Token) -> Job:
        """Take a placement."""
        out = [f"place.out={HOME}", "place.split=true"] if asked.split else []
        return self._take("place", asked.model, asked, asked.place_overrides(), out, who)

    def split(self, asked: SplitAsked, who: Token) -> Job:
        """Take a split."""
        how = [f"split.parts={asked.parts}"] if asked.parts is not None else [f"split.every={asked.every}"]
        if asked.at is not None:
            names = ",".join(f"'{name}'" for name in asked.at)
            how = [f"split.at=[{names}]"]
        out = [f"split.out={HOME}/{PARTS}"]
        return self._take("split", asked.model, asked, [*asked.cut_overrides(), *how], out, who)

    def profile(self, asked: ProfileAsked, who: Token) -> Job:
        """Take a measurement."""
        return self._take("profile", asked.model, asked, asked.profile_overrides(), [], who)

    def _take(self, task: str, model: str, sizes: Sizes, asked: list[str], out: list[str], who: Token) -> Job:
        file = self._shelf.file(model).absolute()
        named = ["model=onnx", f"model.path={file}", f"model.name={model[:12]}", *sizes.overrides()]
        self._answers.composed(*asked)  # refuses at once what does not fit
        line = self._answers.overrides("output=json", f"task={task}", *named, *asked, *out)
        job = self.store.add(task, who.name, [*self._flags, *line])
        self.runner.wake()
        return job
