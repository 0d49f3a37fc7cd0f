"""What users of the installed package run on a run: probe, embed, export.

Each is a dataclass of settings and a function of it, behind `jaxcl NAME`.
Needs `pip install 'jaxcl[tools]'`.
"""

from jaxcl import _optional

for _package in ("flax", "matplotlib", "safetensors", "sklearn", "tyro"):
    _optional.require(_package, "jaxcl.tools", "tools")
