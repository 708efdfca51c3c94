"""What a trained model does with an input: readings, interventions and proofs, as pure functions."""
