"""What a stack of erasures will touch, where it meets, what goes around it and what it costs, before it is attached."""

from efface.planning.findings import findings
from efface.planning.plan import Finding, Plan, PlannedErasure
from efface.planning.planned import Candidate, planned

__all__ = ["Candidate", "Finding", "Plan", "PlannedErasure", "findings", "planned"]
