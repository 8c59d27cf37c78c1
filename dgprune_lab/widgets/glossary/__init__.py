"""The words of the field in plain sentences, each with a picture."""
