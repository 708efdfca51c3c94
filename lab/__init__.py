"""The laboratory around the model: figures, and everything Streamlit in `lab.ui`."""
