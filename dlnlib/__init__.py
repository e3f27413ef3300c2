"""Exact, fast experiments on deep linear networks: data, networks, losses, dynamics, measures,
theory and verdicts.

    import dlnlib as dl

    data = dl.load("digits:0,1")
    run = dl.flow(dl.gaussian([data.d, 4, 1], seed=0), data.scaled().z, dl.logistic, until=1e6)
    dl.rank_one_gap(run.final[0])

About seventy names stand at this face (`__init__.pyi` lists them); the others are in the packages,
in the order in which data go: `data`, `networks`, `losses`, `measure`; `dynamics` and `theory`,
which do not know each other; `verdict` and `book`, which know no torch. Everything is loaded when
it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.2.0"
