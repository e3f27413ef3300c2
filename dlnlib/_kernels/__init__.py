"""The compiled inner loops behind `flow` and `descent`: Numba, float64, on the CPU."""
