"""Training: state, step and run directory; chunks, MoCo's queue, optimizers, metrics.

The step receives the loss of a batch as an argument; nothing here knows a model, a
modality or a loss.
"""

from jaxcl import _optional

for _package in ("flax", "optax", "orbax.checkpoint"):
    _optional.require(_package, "jaxcl.training", "train")

from jaxcl.training import checkpoints as checkpoints
from jaxcl.training.chunks import in_chunks as in_chunks
from jaxcl.training.gradients import float32_gradients as float32_gradients
from jaxcl.training.metrics import MetricWriter as MetricWriter
from jaxcl.training.metrics import check_finite as check_finite
from jaxcl.training.metrics import read_metrics as read_metrics
from jaxcl.training.momentum import Queue as Queue
from jaxcl.training.momentum import create_queue as create_queue
from jaxcl.training.momentum import momentum_update as momentum_update
from jaxcl.training.momentum import push as push
from jaxcl.training.optimizers import adamw as adamw
from jaxcl.training.optimizers import is_weight as is_weight
from jaxcl.training.optimizers import lars as lars
from jaxcl.training.optimizers import linear_scaling as linear_scaling
from jaxcl.training.optimizers import warmup_cosine as warmup_cosine
from jaxcl.training.processes import join_processes as join_processes
from jaxcl.training.run import Run as Run
from jaxcl.training.run import open_run as open_run
from jaxcl.training.settings import load_settings as load_settings
from jaxcl.training.settings import save_settings as save_settings
from jaxcl.training.state import Outcome as Outcome
from jaxcl.training.state import TrainState as TrainState
from jaxcl.training.state import apply_views as apply_views
from jaxcl.training.state import create_state as create_state
from jaxcl.training.state import train_step as train_step
