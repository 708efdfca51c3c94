"""The Transformer of *Attention Is All You Need* (Vaswani et al. 2017): a model to look into, to train and to use."""
