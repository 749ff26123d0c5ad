"""The command `aisec node`: this machine, with this copy of the project, as a node of a Ray cluster."""

import os
import sys

import click

from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.repro.connection import CLIENT_PORT, GCS_PORT


@click.command()
@click.option("--head", is_flag=True, help="Begin a cluster.")
@click.option("--address", metavar="HOST:PORT", help="Join the cluster whose head is there.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address at which other nodes reach this one.")
@click.option("--port", default=GCS_PORT, show_default=True, help="Of the head, for other nodes.")
@click.option(
    "--client-port", default=CLIENT_PORT, show_default=True, help="Of the head, on 127.0.0.1 only, for ray://."
)
@click.option("--slots", type=click.IntRange(0), help="Stages that run at once (default: the processors).")
@click.option("--store", type=click.IntRange(76), help="Megabytes of memory for Ray's object store (default: Ray's).")
def node(
    head: bool, address: str | None, host: str, port: int, client_port: int, slots: int | None, store: int | None
) -> None:
    """Offer this machine, with this copy of the project, to `aisec repro --cluster`; ends with Ctrl-C.

    Only clients that have the token of the nodes can connect to them.
    """
    from aisec_lab.workbench.repro.ray_node import NodeSettings, serve

    if head == bool(address):
        raise ValueError("either --head, which begins a cluster, or --address HOST:PORT, which joins one")
    slots = len(os.sched_getaffinity(0)) if slots is None else slots
    sys.exit(serve(NodeSettings(project_root(), host, address, port, client_port, slots, store)))
