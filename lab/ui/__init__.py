"""What needs Streamlit: shell, language, state of the address, caches and components."""
