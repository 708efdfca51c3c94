"""Claims of the field, each put to the test: one file a claim, a generator of small typed events.

=================  ==============================================================================
file               what it holds
=================  ==============================================================================
events.py          what an experiment says while it runs, and its form as JSON and CSV
experiment.py      what an experiment is: its generator, its options, and what is reported in the end
catalogue.py       the experiments by name
trainings.py       trainings inside an experiment
statistics.py      power laws and confidence intervals
command_line.py    ``python -m lab experiment``
every other file   one claim
=================  ==============================================================================

Nothing here knows Streamlit, SQLite or a terminal. The command line, a worker and the tests each consume the events;
to stop an experiment is to close its generator.
"""
