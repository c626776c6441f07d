"""A plan read from its file, with all that running it and looking for the next one need, each made once."""

from dataclasses import replace
from functools import cached_property

from pepper.config import ModelConfig, PepperConfig
from pepper.errors import ConfigError, ExecutionError
from pepper.execution.pool import runnable
from pepper.graph.ir import Graph
from pepper.graph.model import ModelFile, find_model
from pepper.placement.plan import Plan, PlannedModel
from pepper.placement.problem import ChainProblem
from pepper.planning.forecast import Forecast
from pepper.planning.latency_models import chosen_version, load_version, open_registry
from pepper.planning.posing import chain_problem


class Planned:
    """A plan, its model on this machine, and what the champion foretells of its parts and of others.

    Args:
        config: The whole configuration.
        plan: The plan.
        name: How an error calls it.

    Attributes:
        config: The configuration with the plan's model, and with its own rules where it says nothing else.
        plan: The plan.
        graph: Its model.

    Raises:
        ConfigError: This machine cannot give a device or its load.
        ExecutionError: The plan names no model, or the file's content has changed.
        ModelError: The model cannot be read.
    """

    def __init__(self, config: PepperConfig, plan: Plan, name: str) -> None:
        if plan.model is None:
            raise ExecutionError(f"{name}: the plan names no model; make one with task=place")
        self.plan = plan
        self.config = replace(_under_rules(config, plan), model=_model_config(plan.model))
        self._model = _unchanged(plan.model, find_model(self.config.model), name)
        self.graph: Graph = self._model.graph()
        if plan.parts[-1].stop != len(self.graph.operators):
            raise ExecutionError(
                f"{name}: its parts end after {plan.parts[-1].stop} of the model's {len(self.graph.operators)}"
                " operators; place the model again"
            )
        try:
            runnable(plan.fleet)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error

    @cached_property
    def forecast(self) -> Forecast:
        """What the champion predicts of the model on the plan's fleet.

        Raises:
            LatencyError: The champion cannot be used by this pepper.
        """
        registry = open_registry(self.config)
        version = load_version(registry, chosen_version(registry, self.config.latency.version))
        return Forecast(self.config, self._model, self.graph, self.plan.fleet, version)

    @cached_property
    def problem(self) -> ChainProblem:
        """The problem that the plan solved, as the champion sees it now.

        Raises:
            ConfigError: A rule contradicts the fleet, the model or another one.
            LatencyError: The champion cannot be used by this pepper.
        """
        return chain_problem(self.config, self.forecast)


def _unchanged(planned: PlannedModel, found: ModelFile, name: str) -> ModelFile:
    if found.content_hash != planned.sha256:
        raise ExecutionError(
            f"{name}: was made for another {planned.path} (sha256 {planned.sha256[:12]}, the file has"
            f" {found.content_hash[:12]}); place this model again"
        )
    return found


def _under_rules(config: PepperConfig, plan: Plan) -> PepperConfig:
    """Return the configuration with the plan's own pins, exclusions and most parts, where it says nothing else."""
    place, rules = config.place, plan.rules
    return replace(
        config,
        place=replace(
            place,
            pinned={**{name: list(span) for name, span in rules.pinned.items()}, **place.pinned},
            excluded=sorted({*rules.excluded, *place.excluded}),
            max_parts=place.max_parts if place.max_parts is not None else rules.max_parts,
        ),
    )


def _model_config(model: PlannedModel) -> ModelConfig:
    known = {**model.input_shapes, **model.inner_shapes}
    return ModelConfig(
        path=model.path,
        name=model.name,
        shapes={name: list(shape) for name, shape in known.items()},
        inputs=dict(model.inputs),
    )
