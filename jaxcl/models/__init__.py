"""Flax encoders and projectors: from data to representations h to embeddings z.

Data are images, graphs or sentences.

Parameters are float32; `dtype` chooses the precision of the computation; h and z are
float32 always.
"""

from jaxcl import _optional

_optional.require("flax", "jaxcl.models", "train")

from jaxcl.models import graphs as graphs
from jaxcl.models import text as text
from jaxcl.models.bert import read_bert as read_bert
from jaxcl.models.embedder import Embedder as Embedder
from jaxcl.models.kinds import Described as Described
from jaxcl.models.kinds import build as build
from jaxcl.models.kinds import encode as encode
from jaxcl.models.kinds import initialize as initialize
from jaxcl.models.kinds import kind_of as kind_of
from jaxcl.models.of_graphs import GraphDescription as GraphDescription
from jaxcl.models.of_images import Description as Description
from jaxcl.models.of_text import TextDescription as TextDescription
from jaxcl.models.resnet import BasicBlock as BasicBlock
from jaxcl.models.resnet import BottleneckBlock as BottleneckBlock
from jaxcl.models.resnet import ResNet as ResNet
from jaxcl.models.resnet import resnet18 as resnet18
from jaxcl.models.resnet import resnet34 as resnet34
from jaxcl.models.resnet import resnet50 as resnet50
from jaxcl.models.saved import load as load
from jaxcl.models.saved import read_description as read_description
from jaxcl.models.saved import read_variables as read_variables
from jaxcl.models.saved import save as save
from jaxcl.models.saved import write_description as write_description
from jaxcl.models.small import ConvEncoder as ConvEncoder
from jaxcl.models.small import Projector as Projector

SimCLR = Embedder  # its name until MoCo and others used it as well
