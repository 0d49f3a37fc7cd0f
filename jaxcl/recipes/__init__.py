"""What training on a kind of data needs besides a loss: settings, model, views.

A script's settings extend those of a recipe, and what the recipe makes of them is what
probes and tools make as well: what a model is given is said once.
"""

from jaxcl.recipes.images import MAY_CHANGE as MAY_CHANGE
from jaxcl.recipes.images import WATCHED as WATCHED
from jaxcl.recipes.images import Images as Images
from jaxcl.recipes.images import check as check
from jaxcl.recipes.images import describe as describe
from jaxcl.recipes.images import image_size as image_size
from jaxcl.recipes.images import initialize as initialize
from jaxcl.recipes.images import last_step as last_step
from jaxcl.recipes.images import make_apply as make_apply
from jaxcl.recipes.images import make_monitors as make_monitors
from jaxcl.recipes.images import make_optimizer as make_optimizer
from jaxcl.recipes.images import make_transform as make_transform
from jaxcl.recipes.images import open_images as open_images
from jaxcl.recipes.images import run_options as run_options
from jaxcl.recipes.images import start as start
from jaxcl.recipes.images import variables_of as variables_of
from jaxcl.recipes.protocols import DIGITS as DIGITS
from jaxcl.recipes.protocols import MNIST as MNIST
from jaxcl.recipes.protocols import Instead as Instead
from jaxcl.recipes.protocols import replaced as replaced
from jaxcl.recipes.runs import Encoder as Encoder
from jaxcl.recipes.runs import Labelled as Labelled
from jaxcl.recipes.runs import check_study as check_study
from jaxcl.recipes.runs import labelled as labelled
from jaxcl.recipes.runs import open_encoder as open_encoder
from jaxcl.recipes.runs import probe_features as probe_features
