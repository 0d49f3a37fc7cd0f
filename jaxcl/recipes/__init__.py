"""What a training needs, by name: settings, data, model, optimizer, loss.

A script's settings extend those of its kind of data and of its losses:

    class Settings(recipes.ViewLoss, recipes.Images): ...

`Training` is what all kinds of data share, `Images` is the one of images,
`graphs.Graphs` that of graphs, `text.Sentences` that of sentences, `pairs.Pairs` that
of images with captions. `ViewLoss` serves all but the last, which have `PairLoss`. What
recipes make of settings is what probes and tools make as well: what a model is given is
said once.
"""

from jaxcl.recipes import graphs as graphs
from jaxcl.recipes import pairs as pairs
from jaxcl.recipes import text as text
from jaxcl.recipes.images import WATCHED as WATCHED
from jaxcl.recipes.images import Images as Images
from jaxcl.recipes.images import check_images as check_images
from jaxcl.recipes.images import describe as describe
from jaxcl.recipes.images import image_size as image_size
from jaxcl.recipes.images import initialize as initialize
from jaxcl.recipes.images import make_apply as make_apply
from jaxcl.recipes.images import make_monitors as make_monitors
from jaxcl.recipes.images import make_transform as make_transform
from jaxcl.recipes.images import open_images as open_images
from jaxcl.recipes.losses import KernelName as KernelName
from jaxcl.recipes.losses import LossName as LossName
from jaxcl.recipes.losses import ViewLoss as ViewLoss
from jaxcl.recipes.losses import check_loss as check_loss
from jaxcl.recipes.losses import make_kernel as make_kernel
from jaxcl.recipes.losses import make_loss as make_loss
from jaxcl.recipes.named import RECIPES as RECIPES
from jaxcl.recipes.named import Published as Published
from jaxcl.recipes.named import Recipe as Recipe
from jaxcl.recipes.named import changed_settings as changed_settings
from jaxcl.recipes.named import recipe as recipe
from jaxcl.recipes.named import section as section
from jaxcl.recipes.named import shortened as shortened
from jaxcl.recipes.named import with_recipe as with_recipe
from jaxcl.recipes.pair_losses import PairLoss as PairLoss
from jaxcl.recipes.pair_losses import PairLossName as PairLossName
from jaxcl.recipes.pair_losses import check_pair_loss as check_pair_loss
from jaxcl.recipes.pair_losses import loss_numbers as loss_numbers
from jaxcl.recipes.pair_losses import loss_params as loss_params
from jaxcl.recipes.pair_losses import make_pair_loss as make_pair_loss
from jaxcl.recipes.pair_losses import takes_groups as takes_groups
from jaxcl.recipes.protocols import CIFAR10_CPU as CIFAR10_CPU
from jaxcl.recipes.protocols import DIGITS as DIGITS
from jaxcl.recipes.protocols import MNIST as MNIST
from jaxcl.recipes.protocols import Instead as Instead
from jaxcl.recipes.protocols import replaced as replaced
from jaxcl.recipes.runs import KINDS as KINDS
from jaxcl.recipes.runs import Encoder as Encoder
from jaxcl.recipes.runs import Labelled as Labelled
from jaxcl.recipes.runs import check_study as check_study
from jaxcl.recipes.runs import labelled as labelled
from jaxcl.recipes.runs import open_encoder as open_encoder
from jaxcl.recipes.runs import probe_features as probe_features
from jaxcl.recipes.training import MAY_CHANGE as MAY_CHANGE
from jaxcl.recipes.training import Processes as Processes
from jaxcl.recipes.training import Training as Training
from jaxcl.recipes.training import check as check
from jaxcl.recipes.training import check_size as check_size
from jaxcl.recipes.training import first_variables as first_variables
from jaxcl.recipes.training import join as join
from jaxcl.recipes.training import last_step as last_step
from jaxcl.recipes.training import make_optimizer as make_optimizer
from jaxcl.recipes.training import run_options as run_options
from jaxcl.recipes.training import start as start
from jaxcl.recipes.training import start_alone as start_alone
from jaxcl.recipes.training import steps_per_epoch as steps_per_epoch
from jaxcl.recipes.training import variables_of as variables_of
