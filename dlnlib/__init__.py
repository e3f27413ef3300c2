"""Exact, fast experiments on deep linear networks: weights, dynamics, metrics, theory and verdicts.

Data flows one way: data, weights, dynamics, trajectory, metrics, verdict. Each module holds one idea; import the
module you need (`from dlnlib import flow, theory`) and read its docstring first. The rooms:

data        data, dataset, families, readers
networks    networks (matrices), structured (a linear space of them), models, feedforward (any margin function)
losses      losses (of a margin), outputs (of several scores)
dynamics    flow, modelflow (gradient flow); descent, outputs, modeldescent, stochastic, rules, steepest (steps);
            recording, trajectory; gradients, tangent; kernels/ (compiled)
metrics     metrics, features, patterns, invariants, kkt, rates
theory      the maximum margin: margin, offset, linalg, theory, forecast
            alignment: manyoutputs, aligned, modes, response; of structured layers: frames, departure, factorisation
            parsimony: compression, singular, leakage, completion
            homogeneous networks: homogeneous, directions, tail, nearhomogeneous; other norms: geometric, quasinorms,
            potential, pace
verdicts    verdict, attempt, schema, views, claims, ledger
the book    notebooks, parameters, run, execute, keeper, publish, page, plots, cli; errors
"""

from __future__ import annotations

__version__ = "0.2.0"
