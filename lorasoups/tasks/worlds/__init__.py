"""Generated languages and the pretraining of their embedded bases."""
