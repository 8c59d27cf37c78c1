"""Many runs on any executor, in a table that resumes; the studies that test published claims."""

from .experiment import Experiment, Finding, Scratch, Settings
from .studies import STUDIES
