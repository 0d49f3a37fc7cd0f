"""Pictures of arrays: curves, maps, neighbors. One PNG each, in one style.

Needs matplotlib: `pip install 'jaxcl[tools]'`.
"""

from jaxcl import _optional

_optional.require("matplotlib", "jaxcl.pictures", "tools")

from jaxcl.pictures import style as style
from jaxcl.pictures.neighbors import graph_montage as graph_montage
from jaxcl.pictures.neighbors import montage as montage
from jaxcl.pictures.pairs import distributions as distributions
from jaxcl.pictures.pairs import retrieval as retrieval
from jaxcl.pictures.pairs import similarities as similarities
from jaxcl.pictures.runs import embedding_map as embedding_map
from jaxcl.pictures.runs import learning_curves as learning_curves
from jaxcl.pictures.runs import number_curves as number_curves
from jaxcl.pictures.studies import bars as bars
