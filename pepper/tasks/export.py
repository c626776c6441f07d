"""``task=export``: write a plan as a standing pipeline."""

from pathlib import Path

from pepper.config.composing import Composition
from pepper.console.tables import show
from pepper.deployment.export import PARTS, is_export, pipeline_name, write_export
from pepper.deployment.standing import StandingPipeline, standing_pipeline
from pepper.errors import ConfigError, PlacementError
from pepper.execution.pool import specs
from pepper.graph.split import split as write_parts
from pepper.graph.verify import Verification
from pepper.hosts import reach
from pepper.outputs import output_folder, replace_folder
from pepper.placement.plan import Plan
from pepper.planning.planned import Planned
from pepper.planning.splitting import planned_cuts, proved_plan
from pepper.tasks.result import Result
from pepper.tasks.split import say_proof


def export(composition: Composition) -> Result:
    """Write the pipeline as the configuration says.

    Returns:
        Its status is 0, or 1 if it is not proved that the parts compute what the whole does.

    Raises:
        ConfigError: No plan or folder is given, or a request could not bring the model's inputs.
        DeviceError: A host of the plan cannot be reached.
        ExecutionError: The plan is of another model.
        PlacementError: The file is no plan.
    """
    config, options = composition.config, composition.config.export
    for key, form in (("plan", "FILE, a plan.json of task=place"), ("out", "DIR, the folder to write")):
        if not getattr(options, key):
            raise ConfigError(f"export.{key}: has no value; give export.{key}={form}")
    out = output_folder("export.out", Path(str(options.out)), is_export)
    name = f"export.plan={options.plan}"
    try:
        plan = Plan.load(Path(str(options.plan)))
    except PlacementError as error:
        raise PlacementError(f"export.plan={error}") from error
    reach.use(config.hosts)
    planned = Planned(config, plan, name)
    cuts = planned_cuts(planned.graph, plan, name)
    called = options.name or pipeline_name(str(planned.config.model.name))

    done: list[tuple[Verification, StandingPipeline]] = []

    def write(folder: Path) -> None:
        manifest = write_parts(planned.graph, cuts, folder / PARTS, "export.out")
        manifest, proof = proved_plan(planned.graph, plan, manifest, folder / PARTS, name)
        pipeline = standing_pipeline(
            called, plan, manifest, folder / PARTS, specs(plan.fleet), config.measure.session, options
        )
        write_export(pipeline, plan, options, folder)
        done.append((proof, pipeline))

    replace_folder("export.out", out, is_export, write)
    ((proof, pipeline),) = done
    show(
        f"{called}: {len(plan.parts)} stages on {', '.join(pipeline.hosts)}, and a gateway at port {pipeline.port}, for"
        f" {options.kind}; {out}/README.md says how to start them",
        folder=out,
        name=called,
        kind=options.kind,
        hosts=pipeline.hosts,
        port=pipeline.port,
        proof=str(proof),
    )
    say_proof(proof)
    return Result(0 if proof.ok else 1)
