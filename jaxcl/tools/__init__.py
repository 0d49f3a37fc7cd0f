"""What users of the installed package run on a run: probe, embed, export.

Each is a dataclass of settings and a function of it, behind `jaxcl NAME`.
Needs `pip install 'jaxcl[tools]'`.
"""
