"""Data to train on: sentence pairs from files, toy tasks, and batches of both."""
