# The public face: what `import dlnlib as dl` offers, loaded when first used. Editors and type
# checkers read it.
from . import book as book
from . import data as data
from . import dynamics as dynamics
from . import errors as errors
from . import hypotheses as hypotheses
from . import losses as losses
from . import measure as measure
from . import networks as networks
from . import recorder as recorder
from . import sweeps as sweeps
from . import theory as theory
from . import verdict as verdict
from .data import (
    Dataset as Dataset,
)
from .data import (
    load as load,
)
from .data import (
    one_hot as one_hot,
)
from .data import (
    random_separable as random_separable,
)
from .data import (
    six_points as six_points,
)
from .data import (
    spanning as spanning,
)
from .dynamics import (
    Adam as Adam,
)
from .dynamics import (
    Constant as Constant,
)
from .dynamics import (
    LossScaled as LossScaled,
)
from .dynamics import (
    Sample as Sample,
)
from .dynamics import (
    Schedule as Schedule,
)
from .dynamics import (
    SmoothnessStep as SmoothnessStep,
)
from .dynamics import (
    Steepest as Steepest,
)
from .dynamics import (
    Trajectory as Trajectory,
)
from .dynamics import (
    descend as descend,
)
from .dynamics import (
    flow as flow,
)
from .dynamics import (
    flow_in_time as flow_in_time,
)
from .hypotheses import (
    check as check,
)
from .losses import (
    CovarianceRisk as CovarianceRisk,
)
from .losses import (
    Factorisation as Factorisation,
)
from .losses import (
    MarginRisk as MarginRisk,
)
from .losses import (
    Objective as Objective,
)
from .losses import (
    ScoreRisk as ScoreRisk,
)
from .losses import (
    cross_entropy as cross_entropy,
)
from .losses import (
    exponential as exponential,
)
from .losses import (
    layer_gradients as layer_gradients,
)
from .losses import (
    log_risk_gradient as log_risk_gradient,
)
from .losses import (
    logistic as logistic,
)
from .losses import (
    mean_squared_error as mean_squared_error,
)
from .losses import (
    polynomial as polynomial,
)
from .losses import (
    risk_gradient as risk_gradient,
)
from .losses import (
    squared as squared,
)
from .losses import (
    squared_error as squared_error,
)
from .measure import (
    alignment as alignment,
)
from .measure import (
    balance as balance,
)
from .measure import (
    balance_drift as balance_drift,
)
from .measure import (
    direction_error as direction_error,
)
from .measure import (
    kkt as kkt,
)
from .measure import (
    margin as margin,
)
from .measure import (
    misalignment as misalignment,
)
from .measure import (
    power_law as power_law,
)
from .measure import (
    rank_one_gap as rank_one_gap,
)
from .measure import (
    stable_rank as stable_rank,
)
from .networks import (
    aligned as aligned,
)
from .networks import (
    autograd as autograd,
)
from .networks import (
    balanced as balanced,
)
from .networks import (
    circular_convolution as circular_convolution,
)
from .networks import (
    convolution as convolution,
)
from .networks import (
    deep_linear as deep_linear,
)
from .networks import (
    diagonal as diagonal,
)
from .networks import (
    end_to_end as end_to_end,
)
from .networks import (
    feedforward as feedforward,
)
from .networks import (
    gaussian as gaussian,
)
from .networks import (
    linear as linear,
)
from .networks import (
    margins as margins,
)
from .networks import (
    orthogonal as orthogonal,
)
from .networks import (
    predictor as predictor,
)
from .networks import (
    relu as relu,
)
from .networks import (
    two_layer as two_layer,
)
from .networks import (
    with_product as with_product,
)
from .recorder import (
    Recorder as Recorder,
)
from .sweeps import (
    report as report,
)
from .sweeps import (
    sweep as sweep,
)
from .theory import (
    MaxMargin as MaxMargin,
)
from .theory import (
    max_margin as max_margin,
)
from .verdict import (
    Missing as Missing,
)
from .verdict import (
    Verdict as Verdict,
)
from .verdict import (
    attempt as attempt,
)

__version__: str
