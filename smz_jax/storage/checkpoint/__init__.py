"""What a run needs to continue, on disk: nothing is lost, and nothing wrong is loaded.

`sums` says what each file must hold (SHA-256), `arrays` writes pytrees with Orbax, `rows` the
replay's rows in chunks that are written once, `steps` names the folders, `store` saves steps of
both and reads them back.
"""

from smz_jax.storage.checkpoint.rows import RowChunks, SavedRows, take_rows
from smz_jax.storage.checkpoint.steps import Kind
from smz_jax.storage.checkpoint.store import CheckpointStore, Restored
from smz_jax.storage.checkpoint.sums import Damage

__all__ = ["CheckpointStore", "Damage", "Kind", "Restored", "RowChunks", "SavedRows", "take_rows"]
