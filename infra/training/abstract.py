"""A training step without data and without devices: the shapes of its state and batch, for a compiler."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from infra.presets.language import LanguageConfig
from infra.training.language_job import LanguageJobConfig, loader_config, make_job, model_config
from models.layers.sharding import FSDP, shardings
from tasks.loader import HeadLayout, arrange
from tasks.modalities import Vocabulary


def abstract_batch(preset: LanguageConfig, vocabulary: Vocabulary) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of the loader's batches, from a batch of one empty row."""
    empty = np.zeros((1, preset.length), np.int32)
    layout = HeadLayout.of(vocabulary, model_config(preset, vocabulary))
    row = arrange(
        empty, empty, empty, empty, loader_config(preset), vocabulary, layout, empty if preset.clock else None
    )
    return {name: jax.ShapeDtypeStruct((preset.rows, *a.shape[1:]), a.dtype) for name, a in row.items()}


def lower_language_step(preset: LanguageConfig, vocabulary: Vocabulary, mesh: Mesh) -> Any:
    """Traces the step of `archon train language` for a mesh of devices that need not be there.

    Returns:
        The lowered step; ``.compile()`` compiles it.
    """
    job = make_job(LanguageJobConfig(preset, vocabulary))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(job.init, key)
    lie = shardings(mesh, state, job.axes)
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec(FSDP))
    with jax.set_mesh(mesh):
        step = jax.jit(job.step, donate_argnums=0, out_shardings=(lie, None))
        return step.lower(
            jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, lie),
            {
                name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=rows)
                for name, a in abstract_batch(preset, vocabulary).items()
            },
            jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere),
        )
