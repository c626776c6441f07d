"""Measures the cells of a sweep, one worker for each model and device."""

import random
import time
from collections.abc import Callable, Sequence
from itertools import groupby

from pepper.errors import DeviceError, MeasureError
from pepper.interrupts import check
