"""Trainings and experiments beside the app: store, queue, supervisor and workers. Knows nothing of Streamlit."""
