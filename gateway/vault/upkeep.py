"""What a process that serves does for its vault: forgets keys whose time is over, and takes up rotations that stand still."""

from __future__ import annotations

from gateway import metrics
from gateway.database import Database
from gateway.vault import rotations
from gateway.vault.data_keys import DataKeys
from gateway.vault.reseal import Reseal
from gateway.vault.rewrap import Rewrap
from gateway.vault.rotations import Job, Rotation
from gateway.vault.tokens import Blobs

EVERY_S = 5.0
BATCH = 200  # the event loop stands still for a batch: small ones here, where requests are served too


class VaultUpkeep:
    """The vault of one region, in one process."""

    def __init__(self, keys: DataKeys, database: Database, blobs: Blobs | None = None) -> None:
        self._keys, self._database = keys, database
        self._jobs: dict[str, Job] = {
            "wrap": Rewrap(keys, database, batch=BATCH),
            "data": Reseal(keys, database, blobs, rows=BATCH),
        }

    async def run_once(self) -> None:
        """Sweep the memory; go on with a rotation whose process was killed, until it is done or must wait."""
        await self._keys.run_once()
        for rotation in await rotations.idle(self._database):
            await rotations.run(self._jobs[rotation.kind], self._tell, until=lambda step: step.waiting)
        for rotation in await rotations.all_of(self._database):
            self._tell(rotation)

    def _tell(self, rotation: Rotation) -> None:
        metrics.KEY_ROTATION_LEFT.labels(self._keys.region, rotation.kind).set(rotation.left)
