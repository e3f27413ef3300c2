"""The numbers by which compiled steps know the step rules of `dynamics.rules`."""

CONSTANT, SMOOTHNESS, LOSS_SCALED = range(3)
