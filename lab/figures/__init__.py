"""Arrays in, pictures out: pure functions without Streamlit."""
