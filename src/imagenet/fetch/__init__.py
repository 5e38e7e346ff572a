"""Downloads of ImageNet into a folder: by torrent, from Kaggle, Hugging Face, or a bucket. `run.fetch` is the way in."""
