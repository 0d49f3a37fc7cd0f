"""CLIP: images and their captions, with any loss of pairs of the library.

python -m experiments.clip                                 # digits and their names
python -m experiments.clip --source path/to/emoji64_train.npz \
    --test path/to/emoji64_val.npz --losses clip siglip sc_info_nce kernel_info_nce
python -m experiments.clip --image_from runs/simclr --frozen image   # LiT

Each loss is trained with each seed. Then, on held-out pairs: recall both ways, every
right caption counted; classes told apart by their names; a linear probe of the images.
The encoders of a run are in its directories `image` and `text`.
"""

import functools

import jax

from experiments.clip import measuring, results, settings
from experiments.clip.pretraining import pretrain
from experiments.clip.settings import MAY_CHANGE, Settings
from jaxcl import _cli, data, recipes, study


def main(s: Settings) -> list[study.Row]:
    recipes.start(s)
    recipes.pairs.check(s)
    base, variants = settings.trainings(s)
    held = measuring.hold(s)
    if jax.process_index() == 0:
        for part in (held.train, held.test):
            print(data.pairs.about(part))
    compared = study.Study(
        pretrain=pretrain,
        features=functools.partial(measuring.see, held),
        score=functools.partial(measuring.score, held),
        metric=results.metric(held.keys),
        protocol={
            "test": settings.held_out(s),
            "templates": s.templates,
            "classes": s.classes,
        },
    )
    # Losses and seeds share what is compiled.
    with study.shared_programs():
        rows = study.run(compared, base, variants, s.seeds, may_change=MAY_CHANGE)
    results.tell(s, [results.chance(held, rows[0]), *rows], held)
    home = results.draw(s, base, variants[s.losses[0]], held)
    if jax.process_index() == 0:
        print(f"\nIn {s.directory}: results.json, retrieval.png")
        print(f"In {home}: examples, similarities, temperature.png")
    return rows


if __name__ == "__main__":
    _cli.run(
        main,
        Settings,
        prog="python -m experiments.clip",
        stopped="stopped; the same command goes on with runs that are not finished",
    )
