"""Fits of many or of long rows: what is larger than one pass goes through the model in parts, to the same mathematics, and no part
is long.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import torch

from service.domain.edit import Edit, EditStatus, Probe
from service.editors.baft import looks, prepared
from service.editors.baft.basis import fresh
from service.editors.baft.fit import fit_baft
from service.editors.baft.looks import look
from service.editors.baft.material import Material, gather
from service.editors.baft.runs import Runs
from service.editors.baft.settings import BaftSettings
from service.editors.neutral import Neutral
from service.editors.protocol import FitCancelled, Fitted, Hooks, Item
from service.lm import pieces as sizes
from service.lm.base import Base
from service.lm.overlay import EMPTY, view
from service.lm.pieces import alike, pieces
from tests.builders import make_base
