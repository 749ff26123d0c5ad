"""The actor that Ray starts on a node: it unpacks the source that the coordinator sends, and runs its `node.Node`."""


def agent_class() -> type:
    """The class of the agent.

    It is made in a function so that Ray sends its code: what the node's own copy of the project has of `aisec_lab` may
    be another version, and is never imported.
    """

    class Agent:
        """An agent, for which `members.PROJECT` names its copy of the project.

        Args:
            archive, name: of the source, as `source.ProjectSource` has them.
            slots: stages that run at once.
            threads: OMP_NUM_THREADS on the coordinator's machine: with another number, sums have other bits.
        """

        def __init__(self, archive: bytes, name: str, slots: int, threads: str | None) -> None:
            import io
            import os
            import shutil
            import sys
            import tarfile
            from pathlib import Path

            project = Path(os.environ["AISEC_PROJECT"])
            place = project / ".dvc" / "tmp" / "aisec" / "node"
            root = place / name
            root.mkdir(parents=True, exist_ok=True)
            for other in place.iterdir():
                if other.name not in (name, "logs"):
                    shutil.rmtree(other)
            for path in sorted(root.rglob("*"), reverse=True):  # a former run's; Python's bytecode is still right
                if path.is_dir() and not path.is_symlink():
                    if not any(path.iterdir()):
                        path.rmdir()
                elif path.parent.name != "__pycache__":
                    path.unlink()
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(root, filter="data")

            for variable in [each for each in os.environ if each.startswith("RAY_")]:
                del os.environ[variable]  # no stage is to see Ray's token
            if threads is None:
                os.environ.pop("OMP_NUM_THREADS", None)
            else:
                os.environ["OMP_NUM_THREADS"] = threads
            os.environ["PYTHONPATH"] = str(root)
            os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            sys.path.insert(0, str(root))
            from aisec_lab.workbench.repro.node import Node

            self.node = Node(root, project, slots)

        def call(self, method: str, *arguments: object) -> object:
            """What a method of the node returns."""
            return getattr(self.node, method)(*arguments)

    return Agent
