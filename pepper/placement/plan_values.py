"""Numbers and texts as a plan's file may hold them."""

import sys
from typing import Annotated

from annotated_types import Ge, Le, MaxLen

MOST_WHOLE = 2**53
"""Whole numbers beyond are none that a float can hold."""

Text = Annotated[str, MaxLen(4096)]
_GREATEST = sys.float_info.max  # infinity is no figure
Amount = Annotated[float, Ge(0), Le(_GREATEST)]
Whole = Annotated[int, Ge(0), Le(MOST_WHOLE)]
Rounded = Annotated[float, Ge(-1e-6), Le(_GREATEST)]
"""At least 0, but for rounding."""
