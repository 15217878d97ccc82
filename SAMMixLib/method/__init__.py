"""The paper: Fig. 1 and its equations, on tensors alone."""
