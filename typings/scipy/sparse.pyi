"""What the library calls of scipy.sparse, which has no types: by its source alone, a shape may be None."""

from typing import overload

import numpy as np

class csr_matrix:
    shape: tuple[int, int]
    def __init__(self, arg1: object, shape: tuple[int, int] | None = None) -> None: ...
    @overload
    def __matmul__(self, other: csr_matrix) -> csr_matrix: ...
    @overload
    def __matmul__(self, other: np.ndarray) -> np.ndarray: ...

class dia_array:
    def tocsr(self) -> csr_matrix: ...  # in truth a csr_array, which multiplies alike

def diags_array(diagonals: np.ndarray) -> dia_array: ...
