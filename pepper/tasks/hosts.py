"""``task=head``, ``task=join`` and ``task=fleet``: machines that join a head, and what they are."""

from pathlib import Path

import pepper
from pepper.config import HostsConfig
from pepper.config.composing import Composition
from pepper.config.hosting import HEAD
from pepper.console.tables import plain_table, show
from pepper.errors import ConfigError, DeviceError
from pepper.hosts import engine
from pepper.hosts.bundles import Bundle, issue, read_bundle
from pepper.hosts.remote import Hosts
from pepper.tasks.result import Result


def head(composition: Composition) -> Result:
    """Write the bundles of hosts, and let these join until a signal comes."""
    own, *others = issue(composition.config.hosts)
    show(f"bundles (whoever has one can run programs on the others): {', '.join(map(str, others)) or 'none'}")
    bundle = read_bundle(own)
    engine.head(bundle, lambda: show(f"head at {bundle.address}; Ctrl-C ends it"))
    return Result()


def join(composition: Composition) -> Result:
    """Measure for a head until a signal comes."""
    config = composition.config.hosts
    if config.bundle is None:
        raise ConfigError("hosts.bundle: has no value; give hosts.bundle=FILE, which task=head wrote for this host")
    engine.join(read_bundle(Path(config.bundle)), show)
    return Result()


def fleet(composition: Composition) -> Result:
    """List the hosts that are there.

    Returns:
        Its status is 0, or 1 if one does not answer or is of another version of pepper.
    """
    config = composition.config.hosts
    texts, numbers = ("host", "processor", "onnxruntime", "said"), ("cores", "memory GiB", "load", "agent MiB")
    table, found, status = plain_table(texts, numbers), [], 0
    with Hosts(bundle_of(config), config) as hosts:
        for name in sorted(hosts.present()):
            try:
                it = hosts.ask(name, "describe")
            except DeviceError as error:
                status = 1
                table.add_row(name, "", "", str(error))
                continue
            said = (
                "" if it["pepper"] == pepper.__version__ else f"has pepper {it['pepper']}; install {pepper.__version__}"
            )
            status = 1 if said else status
            found.append({"name": name, **it})
            facts, sizes = it["facts"], (it["facts"]["memory_bytes"] / 2**30, it["agent_memory_bytes"] / 2**20)
            load = f"{it['state']['load_average'][0]:.2f}"
            table.add_row(
                name, facts["cpu_model"], it["onnxruntime"], said, str(len(it["cores"])), f"{sizes[0]:.1f}", load,
                f"{sizes[1]:.0f}",
            )  # fmt: skip
    show(table if found or status else "no host has joined", hosts=found)
    return Result(status)


def bundle_of(config: HostsConfig) -> Bundle:
    """Return what lets this process in: the bundle that is given, or the head's own."""
    return read_bundle(Path(config.bundle or Path(config.folder, f"{HEAD}.json")))
