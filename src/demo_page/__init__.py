"""The page that shows what a trained model says of an image.

`answering.py`, `serving.py` and `space.py` belong to the project. The others import neither torch nor anything of it, name each
other relatively, and are copied into a Hugging Face Space as they are: so both have the same page, limits and guard.
"""
