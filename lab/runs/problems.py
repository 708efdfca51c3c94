"""What can go wrong with a run, as a code that pages translate and a sentence for the command line.

====================  ===============================================================================================
code                  details
====================  ===============================================================================================
unknown_run           run
not_yours             run
still_running         run
nothing_to_resume     run
too_many_runs         limit
no_supervisor         reason
bad_database          reason
diverged              step: the loss was no number any more
disk_full
out_of_memory
bad_data              reason
crashed               reason
killed                times: ended from outside so often without getting on
====================  ===============================================================================================

Further codes are listed in `lab.runs.own_data`, `lab.runs.bundle` and `lab.runs.estimate`.
"""

from typing import Any


class RunProblem(ValueError):
    """Something that a person can be told and can act on.

    Args:
        code: What it is.
        sentence: The same in English.
        details: Numbers and names that belong to it.
    """

    def __init__(self, code: str, sentence: str, **details: Any) -> None:
        super().__init__(sentence)
        self.code = code
        self.details = details

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: ``code``, ``sentence`` and the details."""
        return {"code": self.code, "sentence": str(self), **self.details}
