"""The test of an image, by Airflow's DockerOperator; on its own, for only DAGs with containers need `docker`."""

from __future__ import annotations

from functools import partial
from typing import Any

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from docker.errors import NotFound

from mlpacker_airflow.operators import FINAL, Run, StageOperator
from packer_lib.errors import BuildFailed

LAST = 12
# The run profile of our containers (packer_lib.images.words), as far as the operator has no words of its own for it.
PROFILE = {
    "read_only": True,
    "tmpfs": {"/tmp": ""},  # noqa: S108  the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 512,
    "init": True,
}


class TestImageOperator(StageOperator, DockerOperator):
    """Every model and handler of the image is loaded in a container as the unit will have it, but without a network,
    and answers its golden request. Nothing of the deployer's environment and no secret is there.

    The container has one name for each image: what a killed try has left is replaced by the next.
    """

    __test__ = False  # for pytest, which collects by name
    template_fields = ()
    template_ext = ()
    ui_color = "#e6f4ea"
    final = (*FINAL, BuildFailed)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            **kwargs,
            image="",
            command=["--check"],
            network_mode="none",
            user="10001:10001",
            auto_remove="force",
            mount_tmp_dir=False,
            labels={"io.mlpacker.kind": "check"},
        )

    def work(self, run: Run) -> None:
        from packer_lib.release.stage import told_with_place, variables

        if run.swaps(self.unit):
            self.log.info("swap: the unit itself tries its new models, and refuses what does not answer")
            return
        plan, image = run.plan, run.image(self.unit)
        unit = plan.unit(self.unit)
        self.image = image.name
        self.container_name = f"mlpacker-check-{image.id.removeprefix('sha256:')[:12]}"
        self._private_environment = variables(plan, unit)
        client = self.hook.api_client
        client.create_host_config = partial(client.create_host_config, **PROFILE)
        self._remove_former()
        with told_with_place(plan, unit):
            self._check()
        self.log.info("every model and handler loads, and golden requests are answered")

    def _remove_former(self) -> None:
        try:
            self.cli.remove_container(self.container_name, force=True, v=True)
        except NotFound:
            return
        self.log.info("what a former try has left of %s is removed", self.container_name)

    def _check(self) -> None:
        try:
            DockerOperator.execute(self, {})
        except DockerContainerFailedException as failed:
            said = "\n".join(failed.logs or [])
            found = said.partition("check failed: ")[2].strip() or "\n".join(said.splitlines()[-LAST:])
            raise BuildFailed(f"the unit does not start: {found}", "nothing was switched; deploy again") from None

    def on_kill(self) -> None:
        DockerOperator.on_kill(self)
        StageOperator.on_kill(self)
